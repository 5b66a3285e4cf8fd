//! Looks after the interposers: a server that ended or that cannot be started is counted and told to the pods that felt it, and a mount that
//! came after nobody wanted it any more is taken away.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream;

use crate::driver::NodeDriver;
use crate::error::CallError;
use crate::events;
use crate::mounting::Mounting;
use crate::mounts::{self, Health, Table};
use crate::records::Record;
use crate::server::Unserved;

/// How often. A server that ended is replaced within a second, and the count of servers tells it later.
const PERIOD: Duration = Duration::from_secs(2);
/// How many are asked at once: one that does not answer takes seconds.
const AT_ONCE: usize = 16;

/// What came of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Outcome {
    Replaced,
    /// The mount is over, and files of it never answer again. How long it had waited for a server that never came.
    Aborted(Option<Duration>),
    /// None takes over.
    Unserved(Unserved),
}

impl Outcome {
    /// As a death; nothing when it is told without one.
    const fn death(&self) -> Option<&'static str> {
        match self {
            Self::Replaced => Some("replaced"),
            Self::Aborted(_) => Some("aborted"),
            Self::Unserved(_) => None,
        }
    }

    const fn reason(&self) -> &'static str {
        match self {
            Self::Replaced => "InterposerReplaced",
            Self::Aborted(_) => "InterposerGone",
            Self::Unserved(_) => "InterposerNotStarted",
        }
    }

    fn sentence(&self, volume: &str) -> String {
        match self {
            Self::Replaced => {
                format!("the server of volume {volume} ended and another one took over; I/O paused meanwhile")
            }
            Self::Aborted(waited) => {
                let why = match waited {
                    Some(deadline) => format!("no server took it over within {deadline:?}, and it was let go"),
                    None => "its server and its keeper are both gone, or a rule or somebody else aborted it".to_owned(),
                };
                format!(
                    "the mount of volume {volume} is over: {why}; its files answer ENOTCONN to this pod for ever; \
                     delete the pod, and the next one has the volume again"
                )
            }
            Self::Unserved(Unserved { why, deadline }) => {
                format!(
                    "no server takes over volume {volume}: {why}; its I/O waits, and fails with ENOTCONN after {deadline:?} without a server"
                )
            }
        }
    }
}

/// For the pods of a volume.
#[derive(Debug)]
struct News {
    volume: String,
    outcome: Outcome,
    servers: u64,
}

/// What was seen last of an interposer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Last {
    /// It answered, and had had so many servers.
    Served { servers: u64 },
    /// Its server had ended before it was looked at: with the driver before us, or within a period.
    Ended,
    /// It is dead, and was never seen to live: it may be one that is just taken away again.
    Dead,
    /// It was given up, and that was told.
    Over,
}

/// What one says that is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Now {
    /// It has had so many servers.
    Served(u64),
    /// Between two servers, or slow: it is looked at again.
    Silent,
    Dead,
}

/// What is there before anybody is asked.
#[derive(Debug)]
struct There {
    served: Vec<Record>,
    table: Table,
    unserved: HashMap<PathBuf, Unserved>,
    /// Where a server ended.
    ended: Vec<PathBuf>,
}

/// What was seen last of the interposers.
#[derive(Debug, Default)]
struct Seen {
    /// By place; nothing of those that never answered.
    servers: HashMap<PathBuf, Last>,
    /// Where it was told that no server takes over, and none was seen since.
    unserved: HashMap<PathBuf, Duration>,
}

/// Looks until it is dropped.
pub async fn watch(driver: Arc<NodeDriver>) {
    let mut seen = Seen::default();
    loop {
        tokio::time::sleep(PERIOD).await;
        if let Err(error) = look(&driver, &mut seen).await {
            tracing::warn!(%error, "the interposers could not be looked at");
        }
    }
}

/// Looks once. What is known without a question to a mount comes first, so that none of those that do not answer holds it up.
async fn look(driver: &Arc<NodeDriver>, seen: &mut Seen) -> Result<(), CallError> {
    let there = at_work(driver, There::read).await?;
    for news in seen.begin(&there) {
        tell(driver, &news);
    }
    for news in seen.answered(&ask(driver, &there).await) {
        tell(driver, &news);
    }
    let answered = |last: &&Last| matches!(last, Last::Served { .. });
    driver.metrics.interposers(seen.servers.values().filter(answered).count());
    at_work(driver, clean_up).await
}

async fn at_work<T: Send + 'static>(
    driver: &Arc<NodeDriver>,
    work: impl FnOnce(&NodeDriver) -> Result<T, CallError> + Send + 'static,
) -> Result<T, CallError> {
    let driver = Arc::clone(driver);
    let done = tokio::task::spawn_blocking(move || work(&driver)).await;
    done.map_err(|_panicked| CallError::Bug("looking at the interposers"))?
}

/// Asks all that may answer, a few at once; by volume and place.
async fn ask(driver: &Arc<NodeDriver>, there: &There) -> Vec<(String, PathBuf, Now)> {
    let mounts =
        there.served.iter().filter(|record| !there.unserved.contains_key(&record.place)).filter_map(|record| {
            let mount = there.table.at(&record.place).filter(|mount| mounts::is_interposed(mount))?;
            Some((record.volume.clone(), mount.clone()))
        });
    let asked = mounts.map(|(volume, mount)| {
        at_work(driver, move |driver| {
            let Mounting { servers, probes, .. } = &driver.mounting;
            let now = match servers.look(&mount) {
                Some(seen) => Now::Served(seen.servers),
                None if mounts::health(probes, &mount.point) == Health::Dead => Now::Dead,
                None => Now::Silent,
            };
            Ok((volume, mount.point, now))
        })
    });
    // Futures are made before they are polled: the iterator borrows what is not sent to other threads.
    let asked: Vec<_> = asked.collect();
    stream::iter(asked).buffer_unordered(AT_ONCE).filter_map(|answer| std::future::ready(answer.ok())).collect().await
}

/// Of what is there now, also of volumes that came while others were asked.
fn clean_up(driver: &NodeDriver) -> Result<(), CallError> {
    let mounting = &driver.mounting;
    let noted = mounting.records.read()?;
    let table = Table::read()?;
    let places: Vec<_> =
        noted.records.iter().filter(|record| record.has_server()).map(|record| &*record.place).collect();
    driver.metrics.unreadable(noted.unreadable);
    // A record that cannot be read may be of a volume that needs any of the programs.
    driver.metrics.programs(mounting.servers.tidy(Some(&*places).filter(|_| noted.unreadable == 0)));
    remove_orphans(driver, &table)?;
    let noted = noted.records.iter().map(|record| record.place.as_path());
    let mounted = table.iter().filter(|mount| mounts::is_interposed(mount)).map(|mount| mount.point.as_path());
    if let Err(error) = mounting.servers.forget_left(noted.chain(mounted)) {
        tracing::warn!(%error, "what starts left behind stays");
    }
    Ok(())
}

fn tell(driver: &NodeDriver, news: &News) {
    let News { volume, outcome, servers } = news;
    if let Some(death) = outcome.death() {
        driver.metrics.deaths(death, *servers);
    }
    let sentence = outcome.sentence(volume);
    tracing::warn!(volume, "{sentence}");
    events::warn_pods(driver, volume, outcome.reason(), &sentence);
}

impl There {
    fn read(driver: &NodeDriver) -> Result<Self, CallError> {
        let Mounting { servers, records, .. } = &driver.mounting;
        servers.reap();
        let (unserved, ended) = (servers.unserved(), servers.take_ended());
        driver.metrics.unserved(unserved.len());
        let served = records.all()?.into_iter().filter(Record::has_server).collect();
        Ok(Self { served, table: Table::read()?, unserved, ended })
    }

    fn has(&self, place: &Path) -> bool {
        self.served.iter().any(|record| record.place == place)
    }
}

impl Seen {
    /// What is known before anybody is asked.
    fn begin(&mut self, there: &There) -> Vec<News> {
        for place in &there.ended {
            // Of one that was seen the count of servers tells.
            self.servers.entry(place.clone()).or_insert(Last::Ended);
        }
        self.servers.retain(|place, _| there.has(place));
        self.unserved.retain(|place, _| there.has(place));
        let mut all = Vec::new();
        for Record { volume, place, .. } in &there.served {
            if let Some(why) = there.unserved.get(place)
                && self.unserved.insert(place.clone(), why.deadline).is_none()
            {
                all.push(News { volume: volume.clone(), outcome: Outcome::Unserved(why.clone()), servers: 0 });
            }
        }
        all
    }

    /// What those say that were asked.
    fn answered(&mut self, answers: &[(String, PathBuf, Now)]) -> Vec<News> {
        let mut all = Vec::new();
        for (volume, place, now) in answers {
            let mut news = |outcome, servers| all.push(News { volume: volume.clone(), outcome, servers });
            let next = match (self.servers.get(place).copied(), *now) {
                (_, Now::Silent) | (Some(Last::Over), Now::Dead) => continue,
                (None, Now::Dead) => Last::Dead,
                // Also of one that ended before us: nobody else tells of it.
                (Some(_), Now::Dead) => {
                    news(Outcome::Aborted(self.unserved.get(place).copied()), 1);
                    Last::Over
                }
                (last, Now::Served(servers)) => {
                    self.unserved.remove(place);
                    match last {
                        Some(Last::Served { servers: before }) if servers > before => {
                            news(Outcome::Replaced, servers - before);
                        }
                        Some(Last::Ended) => news(Outcome::Replaced, 1),
                        Some(Last::Served { .. } | Last::Dead | Last::Over) | None => {}
                    }
                    Last::Served { servers }
                }
            };
            self.servers.insert(place.clone(), next);
        }
        all
    }
}

/// A start that was given up may come to its end all the same, after the volume was unstaged.
fn remove_orphans(driver: &NodeDriver, table: &Table) -> Result<(), CallError> {
    let mounting = &driver.mounting;
    for mount in table.iter().filter(|mount| mounts::is_interposed(mount)) {
        // Binds that others make of our mounts were not started by us.
        if mounting.records.has(&mount.point) || !mounting.servers.has_started(&mount.point) {
            continue;
        }
        let volume = mounting.volume_of(mount).map_or_else(|| mount.point.display().to_string(), |id| id.to_string());
        let Ok(_guard) = driver.locks.hold(&volume) else { continue };
        if !mounting.records.has(&mount.point) {
            tracing::warn!(place = %mount.point.display(), "a mount that nobody asks for any more is taken away");
            mounting.unstage(&mount.point)?;
            driver.metrics.orphan();
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::records::Purpose;

    const PLACE: &str = "/kubelet/v/mount";

    fn there(unserved: Option<&Unserved>) -> There {
        let place = PathBuf::from(PLACE);
        let record = Record {
            volume: "v".to_owned(),
            place: place.clone(),
            data: PathBuf::from("/pool/v"),
            called: None,
            namespace: None,
            purpose: Purpose::Inline,
            interposed: true,
            number: None,
            pod: None,
            holder: None,
        };
        There {
            served: vec![record],
            table: Table::read().unwrap(),
            unserved: unserved.map(|why| (place, why.clone())).into_iter().collect(),
            ended: Vec::new(),
        }
    }

    fn answer(seen: &mut Seen, now: Now) -> Vec<Outcome> {
        let news = seen.answered(&[("v".to_owned(), PathBuf::from(PLACE), now)]);
        news.into_iter().map(|news| news.outcome).collect()
    }

    #[test]
    fn a_mount_that_waited_in_vain_is_not_said_to_have_lost_its_keeper() {
        let (mut seen, deadline) = (Seen::default(), Duration::from_secs(300));
        let why = Unserved { why: "no program".to_owned(), deadline };
        assert!(seen.begin(&there(None)).is_empty());
        assert_eq!(answer(&mut seen, Now::Served(1)), []);
        assert_eq!(seen.begin(&there(Some(&why))).len(), 1, "it is told before anybody is asked");
        assert!(seen.begin(&there(Some(&why))).is_empty(), "once");
        assert!(seen.begin(&there(None)).is_empty());
        assert_eq!(answer(&mut seen, Now::Dead), [Outcome::Aborted(Some(deadline))]);
        let sentence = Outcome::Aborted(Some(deadline)).sentence("v");
        assert!(
            sentence.contains("no server took it over within 300s") && !sentence.contains("both gone"),
            "{sentence}"
        );
        assert_eq!(answer(&mut seen, Now::Dead), [], "once");
    }

    #[test]
    fn a_mount_that_was_served_again_did_not_wait_in_vain() {
        let mut seen = Seen::default();
        let why = Unserved { why: "no program".to_owned(), deadline: Duration::from_secs(300) };
        assert_eq!(seen.begin(&there(Some(&why))).len(), 1);
        assert_eq!(answer(&mut seen, Now::Served(1)), []);
        assert_eq!(answer(&mut seen, Now::Served(3)), [Outcome::Replaced]);
        assert_eq!(answer(&mut seen, Now::Silent), []);
        assert_eq!(answer(&mut seen, Now::Dead), [Outcome::Aborted(None)]);
        assert!(Outcome::Aborted(None).sentence("v").contains("or a rule"));
    }
}
