//! One request to a collector, over gRPC or HTTP, and again until it is taken, refused or out of time.
//!
//! Requests are encoded once: the same bytes are sent, sent again, and kept in the spool.

use std::collections::hash_map::RandomState;
use std::error::Error;
use std::hash::BuildHasher as _;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use std::{env, fs, io};

use bytes::{Buf as _, BufMut as _, Bytes};
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceResponse;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use prost::Message as _;
use reqwest::redirect::Policy;
use tokio::time::{Instant, sleep, timeout_at};
use tonic::client::Grpc;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::metadata::MetadataMap;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Code, Extensions, Request, Status};
use tonic_types::StatusExt as _;

use super::ExportError;
use super::target::{Protocol, Target};
use crate::config::Tls;

/// The first pause before a request is tried again; it doubles up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// Headers as `name=value` with commas between, for every endpoint.
const HEADERS_VARIABLE: &str = "OTEL_EXPORTER_OTLP_HEADERS";
const USER_AGENT: &str = concat!("fsi/", env!("CARGO_PKG_VERSION"));

/// What a request holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::telemetry) enum Signal {
    Spans,
    Metrics,
}

/// Why a request was not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::telemetry) enum Undelivered {
    /// The collector said no.
    Refused(String),
    /// It wants to be left alone for longer than there is time.
    Later(String),
    /// It is away, stalls or is busy.
    Away(String),
}

/// What one try came to.
enum Failure {
    No(String),
    Again { reason: String, after: Option<Duration> },
}

/// A collector, and how to reach it.
#[derive(Debug)]
pub(in crate::telemetry) struct Transport {
    wire: Wire,
    pub(super) endpoint: String,
    /// Why the last try failed, for whoever gives up in between.
    last: Mutex<Option<String>>,
}

#[derive(Debug)]
enum Wire {
    Grpc { channel: Channel, metadata: MetadataMap },
    Http { client: reqwest::Client, spans: String, metrics: Option<String> },
}

impl Transport {
    /// Makes no connection yet. To be called within the runtime that is to send.
    pub(in crate::telemetry) fn new(
        target: &Target,
        headers: &[(String, String)],
        tls: &Tls,
    ) -> Result<Self, ExportError> {
        let endpoint = target.endpoint.clone();
        let failed = |reason: String| ExportError::Build { endpoint: endpoint.clone(), reason };
        let headers = all_headers(headers).map_err(failed)?;
        let tls = Pem::read(tls).map_err(failed)?;
        let wire = match target.protocol {
            Protocol::Grpc => grpc(&endpoint, headers, tls).map_err(|error| failed(chain(&error)))?,
            Protocol::Http => {
                let client = http(headers, tls).map_err(|error| failed(chain(&error)))?;
                Wire::Http { client, spans: endpoint.clone(), metrics: target.metrics_endpoint() }
            }
        };
        Ok(Self { wire, endpoint, last: Mutex::new(None) })
    }

    /// Sends until it is taken; says how many of the spans or points in it the collector rejected all the same.
    pub(in crate::telemetry) async fn deliver(
        &self,
        signal: Signal,
        body: &Bytes,
        deadline: Duration,
    ) -> Result<u64, Undelivered> {
        let until = Instant::now() + deadline;
        let mut pause = FIRST_PAUSE.min(deadline / 4);
        loop {
            let (reason, after) = match timeout_at(until, self.once(signal, body.clone())).await {
                Ok(Ok(rejected)) => return Ok(rejected),
                Ok(Err(Failure::No(reason))) => return Err(Undelivered::Refused(reason)),
                Ok(Err(Failure::Again { reason, after })) => (reason, after),
                Err(_elapsed) => {
                    let before = self.last_failure();
                    return Err(Undelivered::Away(before.unwrap_or_else(|| "no answer in time".to_owned())));
                }
            };
            *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(reason.clone());
            let left = until.saturating_duration_since(Instant::now());
            match after {
                Some(after) if after >= left => {
                    return Err(Undelivered::Later(format!("{reason}; it asks for a pause of {after:?}")));
                }
                Some(after) => sleep(after).await,
                None if pause >= left => return Err(Undelivered::Away(reason)),
                None => {
                    // Agents that lost the same collector do not come back all at once.
                    let share = u32::try_from(RandomState::new().hash_one(0) % 512).unwrap_or(0);
                    sleep(pause / 2 + pause * share / 1024).await;
                    pause = (pause * 2).min(LONGEST_PAUSE).min(deadline / 4);
                }
            }
        }
    }

    /// Why the last try failed, since this was asked last.
    pub(super) fn last_failure(&self) -> Option<String> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    async fn once(&self, signal: Signal, body: Bytes) -> Result<u64, Failure> {
        let answer = match &self.wire {
            Wire::Grpc { channel, metadata } => call(channel.clone(), metadata.clone(), signal, body).await?,
            Wire::Http { client, spans, metrics } => {
                let url = match (signal, metrics) {
                    (Signal::Metrics, Some(url)) => url,
                    (Signal::Metrics, None) => return Err(Failure::No("it takes no metrics".to_owned())),
                    (Signal::Spans, _) => spans,
                };
                post(client, url, body).await?
            }
        };
        Ok(rejected(signal, answer))
    }
}

/// An answer that is none of ours rejects nothing.
fn rejected(signal: Signal, answer: Bytes) -> u64 {
    let rejected = match signal {
        Signal::Spans => ExportTraceServiceResponse::decode(answer)
            .ok()
            .and_then(|answer| answer.partial_success)
            .map(|partial| partial.rejected_spans),
        Signal::Metrics => ExportMetricsServiceResponse::decode(answer)
            .ok()
            .and_then(|answer| answer.partial_success)
            .map(|partial| partial.rejected_data_points),
    };
    rejected.and_then(|count| u64::try_from(count).ok()).unwrap_or(0)
}

async fn call(channel: Channel, metadata: MetadataMap, signal: Signal, body: Bytes) -> Result<Bytes, Failure> {
    let path = PathAndQuery::from_static(match signal {
        Signal::Spans => "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
        Signal::Metrics => "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
    });
    let mut grpc = Grpc::new(channel);
    let again = |reason| Failure::Again { reason, after: None };
    grpc.ready().await.map_err(|error| again(chain(&error)))?;
    let request = Request::from_parts(metadata, Extensions::default(), body);
    let answer = grpc.unary(request, path, Raw).await;
    answer.map(tonic::Response::into_inner).map_err(|status| {
        let after = status.get_details_retry_info().and_then(|info| info.retry_delay);
        let reason = format!("{:?}: {}", status.code(), chain(&status));
        match status.code() {
            Code::ResourceExhausted if after.is_none() => Failure::No(reason),
            // As OTLP lists them; what fails on the way is `Unavailable` or `Unknown`, by the stage.
            Code::Cancelled
            | Code::DeadlineExceeded
            | Code::ResourceExhausted
            | Code::Aborted
            | Code::OutOfRange
            | Code::Unavailable
            | Code::DataLoss => Failure::Again { reason, after },
            Code::Unknown if status.source().is_some() => again(reason),
            _ => Failure::No(reason),
        }
    })
}

async fn post(client: &reqwest::Client, url: &str, body: Bytes) -> Result<Bytes, Failure> {
    let request = client.post(url).header(CONTENT_TYPE, "application/x-protobuf").body(body);
    let again = |error: reqwest::Error| Failure::Again { reason: chain(&error), after: None };
    let answer = request.send().await.map_err(again)?;
    let status = answer.status();
    if status.is_success() {
        return answer.bytes().await.map_err(again);
    }
    let after = answer.headers().get(RETRY_AFTER).and_then(|after| after.to_str().ok()?.trim().parse().ok());
    let reason = format!("HTTP status {status}");
    match status.as_u16() {
        429 | 503 => Err(Failure::Again { reason, after: after.map(Duration::from_secs) }),
        502 | 504 => Err(Failure::Again { reason, after: None }),
        _ => Err(Failure::No(reason)),
    }
}

fn grpc(endpoint: &str, headers: HeaderMap, tls: Pem) -> Result<Wire, tonic::transport::Error> {
    let mut builder = Endpoint::from_shared(endpoint.to_owned())?.user_agent(USER_AGENT)?;
    if endpoint.starts_with("https:") {
        let Pem { authorities, identity } = tls;
        let config = ClientTlsConfig::new();
        let mut config = match authorities {
            Some(pem) => config.ca_certificate(Certificate::from_pem(pem)),
            None => config.with_enabled_roots(),
        };
        if let Some((certificate, key)) = identity {
            config = config.identity(Identity::from_pem(certificate, key));
        }
        builder = builder.tls_config(config)?;
    }
    Ok(Wire::Grpc { channel: builder.connect_lazy(), metadata: MetadataMap::from_headers(headers) })
}

fn http(headers: HeaderMap, tls: Pem) -> Result<reqwest::Client, reqwest::Error> {
    // The client takes what the process has chosen; it cannot be built without. The first choice stays.
    rustls::crypto::ring::default_provider().install_default().ok();
    let Pem { authorities, identity } = tls;
    // A redirect would turn the request into another one.
    let mut builder =
        reqwest::Client::builder().user_agent(USER_AGENT).redirect(Policy::none()).default_headers(headers);
    if let Some(pem) = authorities {
        builder = builder.tls_certs_only(reqwest::Certificate::from_pem_bundle(&pem)?);
    }
    if let Some((mut certificate, key)) = identity {
        certificate.push(b'\n');
        certificate.extend(key);
        builder = builder.identity(reqwest::Identity::from_pem(&certificate)?);
    }
    builder.build()
}

/// Certificates, read.
struct Pem {
    authorities: Option<Vec<u8>>,
    identity: Option<(Vec<u8>, Vec<u8>)>,
}

impl Pem {
    fn read(files: &Tls) -> Result<Self, String> {
        let read = |path: &std::path::PathBuf| {
            fs::read(path).map_err(|error: io::Error| format!("read {}: {error}", path.display()))
        };
        let authorities = files.ca_file.as_ref().map(read).transpose()?;
        let identity = match &files.identity {
            Some((certificate, key)) => Some((read(certificate)?, read(key)?)),
            None => None,
        };
        Ok(Self { authorities, identity })
    }
}

/// Those of the environment, and over them those of the endpoint.
fn all_headers(own: &[(String, String)]) -> Result<HeaderMap, String> {
    let environment = env::var(HEADERS_VARIABLE).unwrap_or_default();
    let pairs = environment.split(',').filter_map(|pair| pair.split_once('='));
    let decoded = pairs.map(|(name, value)| {
        let value = percent_encoding::percent_decode_str(value.trim()).decode_utf8_lossy().into_owned();
        (name.trim().to_ascii_lowercase(), value)
    });
    let mut headers = HeaderMap::new();
    for (name, value) in decoded.chain(own.iter().cloned()) {
        let key =
            HeaderName::from_bytes(name.as_bytes()).map_err(|_not_a_name| format!("`{name}` cannot be a header"))?;
        let mut value = HeaderValue::from_str(&value).map_err(|_not_a_value| {
            format!("the value of the header `{name}` cannot be sent: it is not plain ASCII")
        })?;
        value.set_sensitive(true);
        headers.insert(key, value);
    }
    Ok(headers)
}

/// An error with all that is under it: the first says that something failed, the last says what. None is told twice.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut under = error.source();
    while let Some(error) = under {
        let sentence = error.to_string();
        if !text.contains(&sentence) {
            text = format!("{text}: {sentence}");
        }
        under = error.source();
    }
    text
}

/// Bytes as they are.
#[derive(Clone, Copy, Debug)]
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        *self
    }

    fn decoder(&mut self) -> Self {
        *self
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.put(item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }
}
