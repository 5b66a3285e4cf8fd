//! The services put together, and served until SIGTERM or Ctrl-C. What is mounted stays mounted: the next one takes over.

use std::io::IsTerminal as _;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use fsi_agent::telemetry::serve::{self, MetricsServer};
use fsi_csi::bounded::Probes;
use fsi_csi::controller::PoolController;
use fsi_csi::controller::remote::RemoteController;
use fsi_csi::driver::{NodeDriver, Reach};
use fsi_csi::events::{self, Events};
use fsi_csi::holder::{Holders, upkeep};
use fsi_csi::identity::Identified;
use fsi_csi::kubernetes::Kubernetes;
use fsi_csi::locks::Locks;
use fsi_csi::metrics::Metrics;
use fsi_csi::mounting::Mounting;
use fsi_csi::node::NodeService;
use fsi_csi::pool::Pool;
use fsi_csi::proto::csi::controller_server::ControllerServer;
use fsi_csi::proto::csi::identity_server::IdentityServer;
use fsi_csi::proto::csi::node_server::NodeServer;
use fsi_csi::proto::registration::registration_server::RegistrationServer;
use fsi_csi::pulse::{DriverPages, Pulse};
use fsi_csi::records::Records;
use fsi_csi::registration::Registrar;
use fsi_csi::server::Servers;
use fsi_csi::{leftovers, socket, watch};
use futures_util::FutureExt as _;
use tokio::signal::unix::{SignalKind, signal};
use tonic::transport::Server;
use tracing_subscriber::EnvFilter;

use super::{ControllerOptions, NodeOptions, Options, Role};

pub(super) fn main(options: Options) -> ExitCode {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_unset| EnvFilter::new("info"));
    let is_seen = std::io::stderr().is_terminal();
    tracing_subscriber::fmt().with_env_filter(filter).with_ansi(is_seen).with_writer(std::io::stderr).init();
    // TLS to the API takes a choice; a library may have made it already.
    rustls::crypto::ring::default_provider().install_default().ok();
    let done = tokio::runtime::Runtime::new().context("start").and_then(|runtime| {
        let done = runtime.block_on(async {
            match options.command {
                Role::Node(options) => node(*options).await,
                Role::Controller(options) => controller(options).await,
                Role::Hold => {
                    over()?.await;
                    Ok(())
                }
            }
        });
        // A call into a mount that hangs is not waited for.
        runtime.shutdown_background();
        done
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn node(options: NodeOptions) -> Result<()> {
    let socket = socket::path(&options.endpoint)?;
    let metrics = Arc::new(Metrics::new()?);
    let pulse = Pulse::new();
    let _pages = options.metrics.map(|address| pages(address, &metrics, &pulse)).transpose()?;
    let kubernetes = kubernetes(options.no_kubernetes).await?;
    let pool = Pool::open(&options.pool)?;
    let reach = if options.pool_shared { Reach::Everywhere } else { Reach::Node };
    let identity = Identified { needs: Some(pool.root().to_owned()), constrained: reach == Reach::Node };
    let holders = Holders {
        kubernetes: kubernetes.clone(),
        node: options.node_id.clone(),
        // The mount table knows no links.
        kubelet: options.kubelet_dir.canonicalize().unwrap_or_else(|_missing| options.kubelet_dir.clone()),
        own: options.pod_namespace.zip(options.pod_name),
        priority_class: options.holder_priority_class,
    };
    let driver = Arc::new(NodeDriver {
        node: options.node_id,
        reach,
        mounting: Mounting {
            pool,
            servers: Servers::new(options.fsi, options.run_dir.clone()).kept_by(
                options.keeper,
                options.deadline,
                options.programs,
            ),
            records: Records::new(&options.run_dir),
            probes: Probes::default(),
        },
        locks: Locks::default(),
        kubernetes,
        holders,
        metrics,
        events: Events::default(),
    });
    driver.mounting.records.sweep()?;
    driver.mounting.adopt()?;
    let services = || {
        Server::builder()
            .add_service(IdentityServer::new(identity.clone()))
            .add_service(ControllerServer::new(PoolController(Arc::clone(&driver))))
            .add_service(NodeServer::new(NodeService(Arc::clone(&driver))))
    };
    let over = over()?.shared();
    tracing::info!(socket = %socket.display(), node = driver.node, pool = %driver.mounting.pool.root().display(), "serving");
    let csi = socket::serve(&socket, services, over.clone());
    let registrar = Registrar::new(&socket, &options.kubelet_dir);
    let registration = async {
        let Some(folder) = &options.registration_dir else { return Ok(()) };
        let service = || Server::builder().add_service(RegistrationServer::new(registrar.clone()));
        socket::serve(&Registrar::socket(folder), service, over.clone()).await
    };
    // What the driver before us did is ours to do before the next node may lose its own.
    let lacks = || match driver.mounting.servers.pending() {
        0 if options.registration_dir.is_some() && !registrar.is_known() => {
            Some("the kubelet has not taken the driver yet".to_owned())
        }
        0 => None,
        count => Some(format!("volumes that were there before it have no server yet: {count}")),
    };
    tokio::select! {
        served = async { tokio::try_join!(csi, registration) } => drop(served?),
        never = pulse.beat(&socket, lacks) => match never {},
        () = watch::watch(Arc::clone(&driver)) => {}
        () = events::tell(Arc::clone(&driver)) => {}
        () = upkeep::keep_up(Arc::clone(&driver)) => {}
        () = leftovers::sweep(Arc::clone(&driver)) => {}
    }
    Ok(())
}

async fn controller(options: ControllerOptions) -> Result<()> {
    let socket = socket::path(&options.endpoint)?;
    let metrics = Arc::new(Metrics::new()?);
    let pulse = Pulse::new();
    let _pages = options.metrics.map(|address| pages(address, &metrics, &pulse)).transpose()?;
    let identity = Identified { needs: None, constrained: true };
    let controller = RemoteController { metrics, kubernetes: kubernetes(options.no_kubernetes).await? };
    let services = || {
        Server::builder()
            .add_service(IdentityServer::new(identity.clone()))
            .add_service(ControllerServer::new(controller.clone()))
    };
    tracing::info!(socket = %socket.display(), "serving");
    tokio::select! {
        served = socket::serve(&socket, services, over()?.shared()) => served?,
        never = pulse.beat(&socket, || None) => match never {},
    }
    Ok(())
}

async fn kubernetes(is_none: bool) -> Result<Kubernetes> {
    match is_none {
        true => Ok(Kubernetes::none()),
        false => Kubernetes::found().await.context("find the Kubernetes API (--no-kubernetes goes without)"),
    }
}

fn pages(address: SocketAddr, metrics: &Arc<Metrics>, pulse: &Pulse) -> Result<MetricsServer> {
    let pages = DriverPages { metrics: Arc::clone(metrics), pulse: pulse.clone() };
    Ok(serve::serve(address, pages)?)
}

/// Comes when we are asked to end.
fn over() -> Result<impl Future<Output = ()> + Send> {
    let mut terminate = signal(SignalKind::terminate()).context("listen to SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listen to SIGINT")?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}
