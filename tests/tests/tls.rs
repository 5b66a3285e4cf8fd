//! OTLP over https: a collector whose certificate nobody vouches for gets nothing, one that is vouched for gets everything.
#![forbid(unsafe_code)]
#![expect(clippy::tests_outside_test_module, reason = "this whole file is tests")]

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use fsi_tests::fidelity::python;
use fsi_tests::fsi::{fsi, output, succeed, text};
use fsi_tests::need::{Need, has};
use tempfile::tempdir;

/// An authority of our own, and a certificate for localhost from it.
const CERTIFICATES: &str = "
openssl req -x509 -newkey rsa:2048 -nodes -keyout authority.key -out authority.pem -days 2 -subj /CN=authority
openssl req -newkey rsa:2048 -nodes -keyout key.pem -out request -subj /CN=localhost
printf 'subjectAltName=DNS:localhost\\nbasicConstraints=CA:FALSE\\n' > extensions
openssl x509 -req -in request -CA authority.pem -CAkey authority.key -CAcreateserial -days 2 -extfile extensions -out cert.pem
";

/// Takes every request; says its port first.
const COLLECTOR: &str = "
import http.server, ssl
class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        self.rfile.read(int(self.headers['content-length']))
        self.send_response(200)
        self.send_header('content-length', '0')
        self.end_headers()
    def log_message(self, *arguments):
        pass
server = http.server.HTTPServer(('127.0.0.1', 0), Handler)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain('cert.pem', 'key.pem')
server.socket = context.wrap_socket(server.socket, server_side=True)
print(server.server_port, flush=True)
server.serve_forever()
";

fn collector(directory: &Path) -> (Child, String) {
    let mut child = Command::new(python())
        .args(["-c", COLLECTOR])
        .current_dir(directory)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("python starts");
    let mut port = String::new();
    BufReader::new(child.stdout.take().expect("it is piped")).read_line(&mut port).expect("it says its port");
    (child, format!("https://localhost:{}", port.trim()))
}

#[test]
fn only_a_trusted_collector_gets_spans() {
    if !has(&[Need::Probes, Need::Program("openssl"), Need::Program("python3")]) {
        return;
    }
    let directory = tempdir().expect("a directory");
    succeed(Command::new("sh").args(["-ec", CERTIFICATES]).current_dir(directory.path()));
    let (mut collector, url) = collector(directory.path());
    let observe = |deadline: &str| {
        let mut command = fsi(["observe", "--otlp", &url, "--otlp-deadline", deadline, "--", "true"]);
        command.env_remove("SSL_CERT_DIR");
        command
    };
    let stranger = text(&output(&mut observe("2s")).stderr);
    let trusted = text(&output(observe("20s").env("SSL_CERT_FILE", directory.path().join("authority.pem"))).stderr);
    collector.kill().expect("it runs");
    collector.wait().expect("it ends");
    assert!(
        stranger.contains("otlp: 0 spans") && stranger.contains("authority that this machine trusts"),
        "{stranger}"
    );
    assert!(trusted.contains("lost: nothing") && !trusted.contains("otlp: 0 spans"), "{trusted}");
}
