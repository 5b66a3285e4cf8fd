//! A Kubernetes API with the little that the CSI driver asks of one: ConfigMaps, and events that are sent to it.

use std::collections::HashMap;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::{fs, thread};

use serde_json::{Value, json};
use tempfile::TempDir;

/// What it has, by path, and what it was sent.
#[derive(Debug, Default)]
struct Content {
    objects: HashMap<String, Value>,
    events: Vec<Value>,
    /// How many it did not take, while it takes none.
    refused_events: Option<usize>,
    /// The namespace that is being deleted.
    ends: Option<String>,
    status_of_pods: Value,
    /// Why no object may be changed.
    refusal: Option<String>,
    /// With which code no object may be removed.
    stays: Option<u16>,
}

/// A running one; it serves until the test ends.
#[derive(Debug)]
pub struct Api {
    directory: TempDir,
    content: Arc<Mutex<Content>>,
}

impl Api {
    #[must_use]
    pub fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let server = format!("http://{}", listener.local_addr().expect("it listens"));
        let named = |kind: &str, content: Value| json!([{ "name": "test", kind: content }]);
        let access = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "test",
            "clusters": named("cluster", json!({ "server": server })),
            "users": named("user", json!({})),
            "contexts": named("context", json!({ "cluster": "test", "user": "test" })),
        });
        let directory = tempfile::tempdir().expect("a directory");
        fs::write(directory.path().join("config"), access.to_string()).expect("a file");
        let content = Arc::new(Mutex::new(Content::default()));
        let shared = Arc::clone(&content);
        thread::spawn(move || {
            for connection in listener.incoming().map_while(Result::ok) {
                // A client that hangs up is its own business.
                drop(serve(&connection, &shared));
            }
        });
        Self { directory, content }
    }

    /// The access to it.
    #[must_use]
    pub fn kubeconfig(&self) -> PathBuf {
        self.directory.path().join("config")
    }

    /// Has a ConfigMap from now on.
    pub fn put_config_map(&self, namespace: &str, name: &str, data: &[(&str, &str)]) {
        let data: HashMap<_, _> = data.iter().copied().collect();
        let metadata = json!({ "namespace": namespace, "name": name });
        let map = json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data });
        self.put(namespace, "configmaps", name, map);
    }

    /// Has any object from now on: `pods` and so on.
    pub fn put(&self, namespace: &str, kind: &str, name: &str, object: Value) {
        self.lock().objects.insert(format!("/api/v1/namespaces/{namespace}/{kind}/{name}"), object);
    }

    /// Has a volume of that size from now on, which is nobody's and to be had by whoever names it.
    pub fn put_volume(&self, name: &str, size: &str, more: Value) {
        let mut spec = json!({ "capacity": { "storage": size } });
        merge(&mut spec, more);
        let volume =
            json!({ "apiVersion": "v1", "kind": "PersistentVolume", "metadata": { "name": name }, "spec": spec });
        self.lock().objects.insert(format!("/api/v1/persistentvolumes/{name}"), volume);
    }

    /// Refuses every change of an object, with that sentence, or none.
    pub fn refuse_changes(&self, sentence: Option<&str>) {
        self.lock().refusal = sentence.map(str::to_owned);
    }

    /// Refuses to remove any object, with that code, or none.
    pub fn refuse_removals(&self, code: Option<u16>) {
        self.lock().stays = code;
    }

    /// Has something else to do than to take events.
    pub fn refuse_events(&self, refused: bool) {
        self.lock().refused_events = refused.then_some(0);
    }

    /// Has a namespace that is being deleted: nothing can be made there.
    pub fn end_namespace(&self, namespace: &str) {
        self.lock().ends = Some(format!("/namespaces/{namespace}/"));
    }

    /// Those that it did not take.
    #[must_use]
    pub fn refused_events(&self) -> usize {
        self.lock().refused_events.unwrap_or(0)
    }

    /// Has an object no more.
    pub fn remove(&self, namespace: &str, kind: &str, name: &str) {
        self.lock().objects.remove(&format!("/api/v1/namespaces/{namespace}/{kind}/{name}"));
    }

    /// How pods are that are made from now on.
    pub fn set_status_of_pods(&self, status: Value) {
        self.lock().status_of_pods = status;
    }

    /// The objects of a kind in a namespace.
    #[must_use]
    pub fn objects(&self, namespace: &str, kind: &str) -> Vec<Value> {
        let prefix = format!("/api/v1/namespaces/{namespace}/{kind}/");
        let content = self.lock();
        content.objects.iter().filter(|(path, _)| path.starts_with(&prefix)).map(|(_, object)| object.clone()).collect()
    }

    /// The events that were sent.
    #[must_use]
    pub fn events(&self) -> Vec<Value> {
        self.lock().events.clone()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Content> {
        self.content.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// As a merge patch does, of which nothing removes.
fn merge(object: &mut Value, patch: Value) {
    match (object, patch) {
        (Value::Object(object), Value::Object(patch)) => {
            for (key, value) in patch {
                merge(object.entry(key).or_insert(Value::Null), value);
            }
        }
        (object, patch) => *object = patch,
    }
}

/// One request of a connection.
fn serve(mut connection: &TcpStream, content: &Mutex<Content>) -> io::Result<()> {
    let mut reader = BufReader::new(connection);
    let mut request = String::new();
    reader.read_line(&mut request)?;
    let mut length = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        if line.trim().is_empty() {
            break;
        }
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse().unwrap_or(0);
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let mut words = request.split(' ');
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let path = path.split('?').next().unwrap_or_default();
    let mut content = content.lock().unwrap_or_else(PoisonError::into_inner);
    let (status, answer) = match (method, content.objects.get(path).cloned()) {
        ("GET", Some(object)) => (200, object),
        ("DELETE", Some(object)) => match content.stays {
            Some(code) => (code, json!({ "kind": "Status", "status": "Failure", "reason": "Refused", "code": code })),
            None => {
                content.objects.remove(path);
                (200, object)
            }
        },
        ("PATCH", Some(mut object)) => match content.refusal.clone() {
            Some(message) => (
                403,
                json!({ "kind": "Status", "status": "Failure", "reason": "Forbidden", "code": 403, "message": message }),
            ),
            None => {
                merge(&mut object, serde_json::from_slice(&body).unwrap_or_default());
                content.objects.insert(path.to_owned(), object.clone());
                (200, object)
            }
        },
        ("POST", _) if path.ends_with("/events") && content.refused_events.is_some() => {
            content.refused_events = content.refused_events.map(|count| count + 1);
            (503, json!({ "kind": "Status", "status": "Failure", "reason": "ServiceUnavailable", "code": 503 }))
        }
        ("POST", _) if content.ends.as_ref().is_some_and(|ends| path.contains(ends)) => {
            (403, json!({ "kind": "Status", "status": "Failure", "reason": "Forbidden", "code": 403 }))
        }
        ("POST", _) if path.ends_with("/events") => {
            let event: Value = serde_json::from_slice(&body).unwrap_or_default();
            content.events.push(event.clone());
            (201, event)
        }
        // A kubelet would start it; this one is at once what the test says.
        ("POST", _) if path.ends_with("/pods") => {
            let mut pod: Value = serde_json::from_slice(&body).unwrap_or_default();
            let name = pod["metadata"]["name"].as_str().unwrap_or_default().to_owned();
            pod["metadata"]["uid"] = format!("uid-of-{name}").into();
            pod["status"] = content.status_of_pods.clone();
            content.objects.insert(format!("{path}/{name}"), pod.clone());
            (201, pod)
        }
        ("POST", _) if path.ends_with("/persistentvolumeclaims") => {
            let mut claim: Value = serde_json::from_slice(&body).unwrap_or_default();
            let name = claim["metadata"]["name"].as_str().unwrap_or_default().to_owned();
            claim["spec"]["volumeName"] = format!("pv-of-{name}").into();
            content.objects.insert(format!("{path}/{name}"), claim.clone());
            (201, claim)
        }
        _ => {
            let status = json!({ "kind": "Status", "status": "Failure", "reason": "NotFound", "code": 404 });
            (404, status)
        }
    };
    let answer = answer.to_string();
    write!(
        connection,
        "HTTP/1.1 {status} -\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{answer}",
        answer.len()
    )
}
