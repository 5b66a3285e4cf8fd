//! A mount that says strange things, over a real socket.

use std::time::{Duration, Instant};

use crossbeam_channel::Receiver;
use prost::Message;
use tokio::net::UnixStream;
use tokio::runtime::Runtime;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::codegen::tokio_stream::{self as stream};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};

use super::generated::report_message::What;
use super::generated::{Batch, ReportMessage, Taken};
use super::wire::tests::operation;
use super::wire::{hello_to_wire, report_to_wire};
use super::*;
use crate::control::client::Once;
use crate::fuse::report::OpReport;

const DEV: u32 = 52;

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

fn server(directory: &Path) -> (ReportsServer, Receiver<FromMount>, PathBuf) {
    let (sender, receiver) = crossbeam_channel::bounded(64);
    let path = directory.join("agent.sock");
    (ReportsServer::listen(&path, sender).unwrap(), receiver, path)
}

fn mount() -> MountInfo {
    MountInfo {
        dev: DEV,
        device_minor: DEV,
        target: "/mnt".into(),
        source: "/data".into(),
        version: "1".to_owned(),
        ..MountInfo::default()
    }
}

fn hello(first_sequence: u64) -> ReportMessage {
    ReportMessage { what: Some(What::Hello(hello_to_wire(mount(), first_sequence))) }
}

fn batch(first_sequence: u64, next_sequence: u64, reports: Vec<OpReport>) -> ReportMessage {
    let reports = reports.into_iter().map(report_to_wire).collect();
    ReportMessage { what: Some(What::Batch(Batch { first_sequence, next_sequence, reports })) }
}

async fn connect(path: &Path) -> Channel {
    let peer = UnixStream::connect(path).await.unwrap();
    Endpoint::from_static("http://agent.fsi").connect_with_connector(Once(Some(peer))).await.unwrap()
}

/// Says these messages and hangs up; what was answered, and how it ended.
fn say<M: Message + Default + 'static>(path: &Path, messages: Vec<M>) -> (Vec<u64>, Result<(), Status>) {
    runtime().block_on(async {
        let mut client = tonic::client::Grpc::new(connect(path).await);
        client.ready().await.unwrap();
        let codec = tonic_prost::ProstCodec::<M, Taken>::default();
        let method = PathAndQuery::from_static("/fsi.reports.v1.Reports/Report");
        let answers = client.streaming(Request::new(stream::iter(messages)), method, codec).await;
        let mut answers = answers.unwrap().into_inner();
        let mut taken = Vec::new();
        loop {
            match answers.message().await {
                Ok(Some(Taken { next_sequence })) => taken.push(next_sequence),
                Ok(None) => return (taken, Ok(())),
                Err(status) => return (taken, Err(status)),
            }
        }
    })
}

fn operations(count: u64) -> Vec<OpReport> {
    (0..count).map(|unique| operation(DEV, unique)).collect()
}

#[test]
fn the_order_stays_and_what_is_missing_is_lost() {
    let directory = tempfile::tempdir().unwrap();
    let (server, receiver, path) = server(directory.path());
    let messages = [batch(10, 14, operations(3)), batch(14, 16, operations(1)), batch(16, 17, Vec::new())];
    let (taken, ended) = say(&path, [hello(10)].into_iter().chain(messages).collect());
    ended.unwrap();
    assert_eq!(taken, [10, 14, 16, 17]);
    let lost = || FromMount::Lost { dev: DEV, count: 1, why: Lost::QueueFull };
    let expected = [
        FromMount::Hello(mount()),
        FromMount::Operations { dev: DEV, operations: operations(3) },
        lost(),
        FromMount::Operations { dev: DEV, operations: operations(1) },
        lost(),
        lost(),
        FromMount::Gone { dev: DEV, why: Gone::Ended },
    ];
    assert_eq!(receiver.try_iter().collect::<Vec<_>>(), expected);
    let counts = ReportsCounts { operations: 4, lost_queue_full: 3, ..ReportsCounts::default() };
    assert_eq!(server.counts(), counts);
    assert_eq!((mount().dev, wire::device_number(0, DEV)), (DEV, DEV));
}

#[test]
fn what_is_wrong_ends_the_stream_and_is_counted() {
    let directory = tempfile::tempdir().unwrap();
    let (server, receiver, path) = server(directory.path());
    let wrong: Vec<Vec<ReportMessage>> = vec![
        vec![batch(1, 2, operations(1))],
        vec![ReportMessage::default()],
        vec![hello(1), hello(1)],
        vec![hello(1), batch(2, 3, operations(1))],
        vec![hello(1), batch(1, 2, operations(2))],
        vec![hello(1), batch(1, 0, Vec::new())],
        vec![hello(1), batch(1, 1000, operations(MAX_BATCH as u64 + 1))],
    ];
    let mut count = 0;
    for messages in wrong {
        let said = format!("{messages:?}").chars().take(200).collect::<String>();
        let status = say(&path, messages).1.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{said}: {status}");
        count += 1;
        assert_eq!(server.counts().invalid, count);
        assert_eq!(receiver.try_iter().filter(|message| matches!(message, FromMount::Operations { .. })).count(), 0);
    }
    // Bytes that are no such message, and one that is too long.
    let garbage = crate::control::generated::ShowReply { source: b"\xff\xff\xff".to_vec(), ..Default::default() };
    assert_eq!(say(&path, vec![garbage]).1.unwrap_err().code(), Code::InvalidArgument);
    let long = crate::control::generated::ShowReply { source: vec![0; MAX_MESSAGE_BYTES], ..Default::default() };
    assert_eq!(say(&path, vec![long]).1.unwrap_err().code(), Code::InvalidArgument);
    assert_eq!(server.counts().invalid, count + 2);
    // The mounts that were refused may come again.
    say(&path, vec![hello(1)]).1.unwrap();
}

#[test]
fn a_mount_has_one_server_at_a_time() {
    let directory = tempfile::tempdir().unwrap();
    let (server, _receiver, path) = server(directory.path());
    let runtime = runtime();
    let (out, told) = tokio::sync::mpsc::channel(4);
    runtime.block_on(async {
        out.send(hello(1)).await.unwrap();
        let mut client = generated::reports_client::ReportsClient::new(connect(&path).await);
        let told = stream::wrappers::ReceiverStream::new(told);
        let mut answers = client.report(told).await.unwrap().into_inner();
        assert_eq!(answers.message().await.unwrap(), Some(Taken { next_sequence: 1 }));
    });
    assert_eq!(server.counts().mounts, 1);
    assert_eq!(say(&path, vec![hello(1)]).1.unwrap_err().code(), Code::Aborted);
    drop((out, runtime));
    say(&path, vec![hello(1)]).1.unwrap();
}

#[test]
#[expect(clippy::print_stdout, reason = "a skip is said")]
fn other_users_are_hung_up_on() {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: only root can be somebody else");
        return;
    }
    use std::os::unix::fs::PermissionsExt as _;
    let directory = tempfile::tempdir().unwrap();
    let (server, _receiver, path) = server(directory.path());
    for (path, mode) in [(directory.path(), 0o755), (&*path, 0o666)] {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    }
    let somebody = path.clone();
    let connected = thread::spawn(move || {
        let nobody = rustix::process::Uid::from_raw(65_534);
        rustix::thread::set_thread_res_uid(nobody, nobody, nobody).unwrap();
        std::os::unix::net::UnixStream::connect(somebody).map(drop)
    });
    connected.join().unwrap().unwrap();
    let until = Instant::now() + Duration::from_secs(10);
    while server.counts().refused == 0 {
        assert!(Instant::now() < until);
        thread::yield_now();
    }
    say(&path, vec![hello(1)]).1.unwrap();
}
