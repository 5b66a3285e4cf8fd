//! Against a server that speaks the API's list and watch, well and badly.

use std::collections::VecDeque;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;

use serde_json::{Value, json};

use super::*;
use crate::attribution::cgroups::{Cgroup, PodPlace};
use crate::attribution::identity::{Identity, Pod};
use crate::attribution::policy::Observe;

/// What the server does with a request.
#[derive(Clone, Debug)]
enum Answer {
    Whole(u16, String),
    /// A watch: these, then nothing for as long as the client likes.
    Stream(Vec<Value>),
    /// A watch that breaks off after these.
    Broken(Vec<Value>),
    /// The connection ends.
    Hangs,
}

/// What has come and what is to be answered to each kind of request; the last answer is given again and again.
#[derive(Debug, Default)]
struct Script {
    lists: VecDeque<Answer>,
    watches: VecDeque<Answer>,
    namespaces: Option<Answer>,
    volumes: Option<Answer>,
    seen: Vec<String>,
}

struct Api {
    script: Arc<Mutex<Script>>,
    folder: tempfile::TempDir,
}

impl Api {
    fn start(lists: Vec<Answer>, watches: Vec<Answer>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let folder = tempfile::tempdir().unwrap();
        let server = format!("http://{}", listener.local_addr().unwrap());
        let named = |kind: &str, content: Value| json!([{ "name": "test", kind: content }]);
        let access = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "test",
            "clusters": named("cluster", json!({ "server": server })),
            "users": named("user", json!({})),
            "contexts": named("context", json!({ "cluster": "test", "user": "test" })),
        });
        std::fs::write(folder.path().join("config"), access.to_string()).unwrap();
        let script = Script { lists: lists.into(), watches: watches.into(), ..Script::default() };
        let script = Arc::new(Mutex::new(script));
        let shared = Arc::clone(&script);
        thread::spawn(move || {
            for connection in listener.incoming().map_while(Result::ok) {
                let script = Arc::clone(&shared);
                thread::spawn(move || drop(serve(&connection, &script)));
            }
        });
        Self { script, folder }
    }

    fn seen(&self) -> Vec<String> {
        self.script.lock().unwrap().seen.clone()
    }

    fn client(&self) -> Client {
        Client::start(&self.folder.path().join("config"))
    }
}

fn next(answers: &mut VecDeque<Answer>) -> Answer {
    let answer = answers.front().cloned().unwrap_or(Answer::Stream(Vec::new()));
    if answers.len() > 1 {
        answers.pop_front();
    }
    answer
}

fn serve(connection: &TcpStream, script: &Mutex<Script>) -> io::Result<()> {
    let mut request = BufReader::new(connection);
    loop {
        let mut first = String::new();
        request.read_line(&mut first)?;
        let Some(target) = first.split(' ').nth(1) else { return Ok(()) };
        let mut header = String::new();
        while request.read_line(&mut header)? > 2 {
            header.clear();
        }
        let answer = {
            let mut script = script.lock().unwrap();
            script.seen.push(target.to_owned());
            let is_watch = target.contains("watch=true");
            match target {
                _ if target.contains("/namespaces") && is_watch => Answer::Stream(Vec::new()),
                _ if target.contains("/namespaces") => script.namespaces.clone().unwrap_or_else(|| list(&[])),
                _ if target.contains("/persistentvolumes/") => script.volumes.clone().unwrap_or(Answer::Hangs),
                _ if is_watch => next(&mut script.watches),
                _ => next(&mut script.lists),
            }
        };
        give(connection, answer)?;
    }
}

fn give(mut connection: &TcpStream, answer: Answer) -> io::Result<()> {
    let chunk = |event: &Value| {
        let line = format!("{event}\n");
        format!("{:x}\r\n{line}\r\n", line.len())
    };
    let begin = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n";
    match answer {
        Answer::Whole(status, body) => {
            let length = body.len();
            write!(
                connection,
                "HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
            )
        }
        Answer::Stream(events) => {
            write!(connection, "{begin}{}", events.iter().map(chunk).collect::<String>())?;
            // Until the client goes.
            BufReader::new(connection).read_line(&mut String::new())?;
            Err(io::ErrorKind::ConnectionReset.into())
        }
        Answer::Broken(events) => {
            write!(connection, "{begin}{}", events.iter().map(chunk).collect::<String>())?;
            Err(io::ErrorKind::ConnectionReset.into())
        }
        Answer::Hangs => Err(io::ErrorKind::ConnectionReset.into()),
    }
}

fn list(items: &[Value]) -> Answer {
    Answer::Whole(200, json!({ "kind": "List", "metadata": { "resourceVersion": "10" }, "items": items }).to_string())
}

fn pod(name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "name": name, "namespace": "shop", "uid": format!("uid-{name}"), "resourceVersion": "11" },
        "spec": { "nodeName": "n1", "containers": [{ "name": "main", "image": "image:1" }] },
    })
}

fn event(kind: &str, object: Value) -> Value {
    json!({ "type": kind, "object": object })
}

fn gone() -> Value {
    let status =
        json!({ "kind": "Status", "status": "Failure", "reason": "Expired", "message": "too old", "code": 410 });
    event("ERROR", status)
}

struct Client {
    learns: Learns,
    watch: Watch,
}

impl Client {
    fn start(kubeconfig: &Path) -> Self {
        let counters = Arc::<Counters>::default();
        let (claims, asked) = Claims::of_cluster(Arc::clone(&counters));
        let (pods, claims) = (Arc::new(Pods::new(Arc::clone(&counters))), Arc::new(claims));
        let learns = Learns { pods, claims, counters };
        let config = Kubernetes { node: "n1".to_owned(), kubeconfig: Some(kubeconfig.to_owned()) };
        let watch = Watch::start(config, learns.clone(), asked).unwrap();
        Self { learns, watch }
    }

    fn pod(&self, name: &str) -> Option<Arc<Pod>> {
        self.learns.pods.pod(&format!("uid-{name}"))
    }

    fn identity(&self, name: &str) -> Identity {
        let pod = PodPlace { uid: format!("uid-{name}").into(), container: None };
        self.learns.pods.identity(&Cgroup { path: "/".into(), container: None, pod: Some(pod) })
    }

    fn status(&self) -> Status {
        self.watch.status()
    }
}

fn eventually(what: &str, is: impl Fn() -> bool) {
    for _ in 0..1500 {
        if is() {
            return;
        }
        thread::sleep(Duration::from_millis(10));
    }
    panic!("{what}: not within 15 s");
}

#[test]
fn pods_of_the_list_and_of_the_watch_and_those_that_end() {
    let events = vec![event("ADDED", pod("b")), event("DELETED", pod("a"))];
    let api = Api::start(vec![list(&[pod("a")])], vec![Answer::Stream(events)]);
    let client = api.client();
    eventually("both are known", || client.pod("a").is_some() && client.pod("b").is_some());
    assert!(client.identity("a").pod.is_some(), "it ended and is remembered");
    assert!(api.seen().iter().any(|target| target.contains("fieldSelector=spec.nodeName%3Dn1")), "{:?}", api.seen());
    eventually("it is connected", || client.status().pods.connected_since_ns.is_some());
    let pods = client.status().pods;
    assert!(pods.listed && pods.last_error.is_none(), "{pods:?}");
}

#[test]
fn a_watch_that_is_forgotten_begins_with_a_new_list() {
    let watches = vec![Answer::Stream(vec![gone()]), Answer::Stream(vec![event("ADDED", pod("c"))])];
    let api = Api::start(vec![list(&[pod("a")]), list(&[pod("b")])], watches);
    let client = api.client();
    eventually("the second list is taken", || client.pod("b").is_some() && client.pod("c").is_some());
    assert!(client.pod("a").is_some(), "it ended meanwhile and is remembered");
    let status = client.status().pods;
    assert!(status.last_error.as_ref().is_some_and(|error| error.contains("too old")), "{status:?}");
    eventually("it is connected again", || client.status().pods.connected_since_ns.is_some());
}

#[test]
fn a_watch_that_breaks_off_goes_on() {
    let watches = vec![
        Answer::Broken(vec![event("ADDED", pod("b"))]),
        Answer::Hangs,
        Answer::Stream(vec![event("ADDED", pod("c"))]),
    ];
    let api = Api::start(vec![list(&[pod("a")])], watches);
    let client = api.client();
    eventually("what came after is known", || client.pod("c").is_some());
    assert!(client.pod("a").is_some() && client.pod("b").is_some());
    assert!(client.learns.counters.get(Counter::ApiErrors) > 0);
    assert!(client.status().pods.connected_since_ns.is_some());
}

#[test]
fn what_makes_no_sense_is_counted_and_tried_again() {
    let lists = vec![
        Answer::Whole(200, "<html>log in</html>".to_owned()),
        Answer::Whole(
            403,
            json!({ "kind": "Status", "status": "Failure", "message": "pods is forbidden", "code": 403 }).to_string(),
        ),
        list(&[json!({ "metadata": { "name": "nobody" }, "spec": {} }), pod("a")]),
    ];
    let watches = vec![Answer::Stream(vec![
        json!({ "type": "WHAT" }),
        event("ADDED", json!("garbage")),
        event("ADDED", pod("b")),
    ])];
    let api = Api::start(lists, watches);
    let client = api.client();
    eventually("it is refused", || {
        client.status().pods.last_error.is_some_and(|error| error.contains("pods is forbidden"))
    });
    assert_eq!(client.status().pods.connected_since_ns, None);
    eventually("the list is taken", || client.pod("a").is_some());
    eventually("what is sound in the watch is taken", || client.pod("b").is_some());
    assert_eq!(client.learns.counters.get(Counter::ApiMalformed), 1, "the pod without a uid");
}

#[test]
fn an_api_that_refuses_is_asked_less_and_less() {
    let refusal = json!({ "kind": "Status", "status": "Failure", "message": "pods is forbidden", "code": 403 });
    let api = Api::start(vec![Answer::Whole(403, refusal.to_string())], Vec::new());
    let client = api.client();
    // Pauses of at least 0.8, 1.6, 3.2 and 6.4 s; of the first alone there would be five in this time, and more.
    thread::sleep(Duration::from_secs(9));
    let lists = api.seen().iter().filter(|target| target.contains("/pods")).count();
    assert!((2..=4).contains(&lists), "{lists} in 9 s: {:?}", client.status().pods);
}

#[test]
fn an_api_that_is_away_says_so_and_does_not_hold_up_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let client = Client::start(&folder.path().join("missing"));
    eventually("the file is missed", || client.status().pods.last_error.is_some());
    assert_eq!(client.identity("a").pod_uid.as_deref(), Some("uid-a"), "what the path says is known anyway");
    // Nobody answers here.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let server = format!("http://{}", listener.local_addr().unwrap());
    let api = Api::start(Vec::new(), Vec::new());
    let path = api.folder.path().join("config");
    let text = std::fs::read_to_string(&path).unwrap();
    let config: Value = serde_json::from_str(&text).unwrap();
    let old = config["clusters"][0]["cluster"]["server"].as_str().unwrap();
    std::fs::write(&path, text.replace(old, &server)).unwrap();
    let silent = Client::start(&path);
    let begin_ns = monotonic_ns();
    thread::sleep(Duration::from_millis(300));
    assert_eq!(silent.status().pods, Link::default());
    drop(silent);
    drop(client);
    assert!(crate::clock::Clock::since(begin_ns) < Duration::from_secs(5));
}

#[test]
fn namespaces_make_policy_and_volumes_are_asked_for() {
    let api = Api::start(vec![list(&[pod("a")])], Vec::new());
    let annotations = json!({ "fsi.dev/observe": "off", "other": "x" });
    let shop = json!({ "metadata": { "name": "shop", "uid": "n", "annotations": annotations } });
    let volume = json!({
        "apiVersion": "v1", "kind": "PersistentVolume", "metadata": { "name": "pvc-1" },
        "spec": { "storageClassName": "fast", "claimRef": { "namespace": "shop", "name": "data" } },
    });
    {
        let mut script = api.script.lock().unwrap();
        script.namespaces = Some(list(&[shop]));
        script.volumes = Some(Answer::Whole(200, volume.to_string()));
    }
    let client = api.client();
    let observe = || client.pod("a").and_then(|pod| pod.policy.observe);
    eventually("the namespace's annotation holds", || observe() == Some(Observe::Off));
    let name = Arc::<str>::from("pvc-1");
    let before = client.learns.pods.generation();
    eventually("the volume is known", || client.learns.claims.volume(&name).is_some());
    assert_eq!(&*client.learns.claims.volume(&name).unwrap().claim.as_ref().unwrap().name, "data");
    eventually("answers are made anew", || client.learns.pods.generation() > before);
    let asked = api.seen().into_iter().filter(|target| target.contains("persistentvolumes")).count();
    assert_eq!(asked, 1);
}
