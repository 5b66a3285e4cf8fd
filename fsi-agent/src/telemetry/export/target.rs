//! Where an OTLP URL leads, and how to speak there.

use tonic::transport::Uri;

use super::ExportError;

/// How to speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    Grpc,
    Http,
}

/// Where to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) protocol: Protocol,
    pub(super) endpoint: String,
    /// What it is called in reports and metrics: as it was written, without user and password.
    pub(super) name: String,
}

/// The port that OTLP reserves for gRPC.
const GRPC_PORT: u16 = 4317;

impl Target {
    pub(super) fn parse(url: &str) -> Result<Self, ExportError> {
        let refused = |reason| ExportError::Url { url: url.to_owned(), reason };
        let uri: Uri = url.parse().map_err(|_not_a_uri| refused("not a URL"))?;
        let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
            return Err(refused("say http://HOST:4318, https://, grpc://HOST:4317 or grpcs://"));
        };
        if authority.host().is_empty() {
            return Err(refused("the host is missing"));
        }
        // `port_u16` is also nothing when there is none.
        if authority.as_str().rsplit_once(':').is_some_and(|(_, port)| !port.contains(']')) && uri.port_u16().is_none()
        {
            return Err(refused("the port is none"));
        }
        let path = uri.path_and_query().map_or("", |path| path.as_str()).trim_end_matches('/');
        let (_user, address) = authority.as_str().rsplit_once('@').unwrap_or(("", authority.as_str()));
        let name = format!("{scheme}://{address}{path}");
        let (tls, protocol) = match scheme {
            "grpc" => ("http", Protocol::Grpc),
            "grpcs" => ("https", Protocol::Grpc),
            "http" | "https" if uri.port_u16() == Some(GRPC_PORT) && path.is_empty() => (scheme, Protocol::Grpc),
            "http" | "https" => (scheme, Protocol::Http),
            _ => return Err(refused("the scheme is none of http, https, grpc, grpcs")),
        };
        let path = match protocol {
            Protocol::Grpc if !path.is_empty() => return Err(refused("a gRPC address has no path")),
            Protocol::Http if path.is_empty() => "/v1/traces",
            Protocol::Grpc | Protocol::Http => path,
        };
        Ok(Self { protocol, endpoint: format!("{tls}://{authority}{path}"), name })
    }

    /// Where metrics go: over HTTP to the path beside that of traces.
    pub(super) fn metrics_endpoint(&self) -> Option<String> {
        match self.protocol {
            Protocol::Grpc => Some(self.endpoint.clone()),
            Protocol::Http => self.endpoint.strip_suffix("/v1/traces").map(|base| format!("{base}/v1/metrics")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_and_what_they_mean() {
        let cases = [
            ("http://h:4317", Protocol::Grpc, "http://h:4317"),
            ("http://h:4317/", Protocol::Grpc, "http://h:4317"),
            ("https://h:4317", Protocol::Grpc, "https://h:4317"),
            ("grpc://h:9999", Protocol::Grpc, "http://h:9999"),
            ("grpcs://[::1]:1", Protocol::Grpc, "https://[::1]:1"),
            ("http://h:4318", Protocol::Http, "http://h:4318/v1/traces"),
            ("https://h:4318", Protocol::Http, "https://h:4318/v1/traces"),
            ("http://h/", Protocol::Http, "http://h/v1/traces"),
            ("http://h/otlp/v1/traces", Protocol::Http, "http://h/otlp/v1/traces"),
            ("http://[::1]/", Protocol::Http, "http://[::1]/v1/traces"),
            ("http://h:4317/v1/traces", Protocol::Http, "http://h:4317/v1/traces"),
        ];
        for (url, protocol, endpoint) in cases {
            let target = Target::parse(url).unwrap();
            assert_eq!((target.protocol, target.endpoint.as_str()), (protocol, endpoint), "{url}");
        }
        let name = |url| Target::parse(url).unwrap().name;
        assert_eq!(name("http://user:secret@h:1/x"), "http://h:1/x");
        assert_eq!([name("grpc://h:1"), name("https://h:4318/")], ["grpc://h:1", "https://h:4318"]);
        let metrics = |url| Target::parse(url).unwrap().metrics_endpoint();
        assert_eq!(metrics("http://h/otlp/v1/traces").unwrap(), "http://h/otlp/v1/metrics");
        assert_eq!(metrics("grpc://h:1").unwrap(), "http://h:1");
        assert_eq!(metrics("http://h/collect"), None);
        for url in ["", "h:4317", "localhost", "ftp://h", "http://", "http://h:99999", "grpc://h/x", "http://a b"] {
            assert!(Target::parse(url).is_err(), "{url}");
        }
    }
}
