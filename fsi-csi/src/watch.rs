//! Looks after the interposers: a server that ended or that cannot be started is counted and told to the pods that felt it, and a mount that
//! came after nobody wanted it any more is taken away.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::driver::NodeDriver;
use crate::error::CallError;
use crate::events;
use crate::mounts::{self, Health, Table};
use crate::records::{Purpose, Record};
use crate::server::Unserved;

/// How often. A server that ended is replaced within a second, and the count of servers tells it later.
const PERIOD: Duration = Duration::from_secs(2);

/// What came of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Outcome {
    Replaced,
    Aborted,
    /// None takes over.
    Unserved(Unserved),
}

impl Outcome {
    /// As a death; nothing when it is told without one.
    const fn death(&self) -> Option<&'static str> {
        match self {
            Self::Replaced => Some("replaced"),
            Self::Aborted => Some("aborted"),
            Self::Unserved(_) => None,
        }
    }

    const fn reason(&self) -> &'static str {
        match self {
            Self::Replaced => "InterposerReplaced",
            Self::Aborted => "InterposerGone",
            Self::Unserved(_) => "InterposerNotStarted",
        }
    }

    fn sentence(&self, volume: &str) -> String {
        match self {
            Self::Replaced => {
                format!("the server of volume {volume} ended and another one took over; I/O paused meanwhile")
            }
            Self::Aborted => {
                format!(
                    "the server of volume {volume} and its keeper are both gone: its files answer ENOTCONN to this pod for ever; \
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

/// What was seen last of the interposers.
#[derive(Debug, Default)]
struct Seen {
    /// By place; nothing of those that never answered.
    servers: HashMap<PathBuf, Last>,
    /// Where it was told that no server takes over.
    unserved: HashSet<PathBuf>,
}

/// Looks until it is dropped.
pub async fn watch(driver: Arc<NodeDriver>) {
    let mut seen = Seen::default();
    loop {
        tokio::time::sleep(PERIOD).await;
        let looking = Arc::clone(&driver);
        let look = tokio::task::spawn_blocking(move || {
            looking.mounting.servers.reap();
            let news = seen.look(&looking);
            (seen, news)
        });
        match look.await {
            Ok((after, Ok(all))) => {
                seen = after;
                for news in all {
                    tell(&driver, &news);
                }
            }
            Ok((after, Err(error))) => {
                tracing::warn!(%error, "the interposers could not be looked at");
                seen = after;
            }
            Err(_panicked) => seen = Seen::default(),
        }
    }
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

impl Seen {
    fn look(&mut self, driver: &NodeDriver) -> Result<Vec<News>, CallError> {
        let mounting = &driver.mounting;
        let records = mounting.records.all()?;
        let table = Table::read()?;
        let mut all = Vec::new();
        let is_served = |record: &&Record| record.interposed && record.purpose != Purpose::Publish;
        let served: Vec<_> = records.iter().filter(is_served).collect();
        let unserved = mounting.servers.unserved();
        for place in mounting.servers.take_ended() {
            // Of one that was seen the count of servers tells.
            self.servers.entry(place).or_insert(Last::Ended);
        }
        self.servers.retain(|place, _| records.iter().any(|record| record.place == *place));
        self.unserved.retain(|place| unserved.contains_key(place));
        for Record { volume, place, .. } in &served {
            let news = |outcome, servers| News { volume: volume.clone(), outcome, servers };
            if let Some(why) = unserved.get(place)
                && self.unserved.insert(place.clone())
            {
                all.push(news(Outcome::Unserved(why.clone()), 0));
            }
            let Some(mount) = table.at(place).filter(|mount| mounts::is_interposed(mount)) else { continue };
            let last = self.servers.get(place).copied();
            let now = mounting.servers.look(mount).map(|seen| seen.servers);
            let is_over = || mounts::health(&mounting.probes, place) == Health::Dead;
            let next = match (last, now) {
                (Some(Last::Over), None) => continue,
                (None, None) if is_over() => Last::Dead,
                // Also of one that ended before us: nobody else tells of it.
                (_, None) if is_over() => {
                    all.push(news(Outcome::Aborted, 1));
                    Last::Over
                }
                // Between two servers, or slow: it is looked at again.
                (_, None) => continue,
                (last, Some(servers)) => {
                    match last {
                        Some(Last::Served { servers: before }) if servers > before => {
                            all.push(news(Outcome::Replaced, servers - before));
                        }
                        Some(Last::Ended) => all.push(news(Outcome::Replaced, 1)),
                        Some(Last::Served { .. } | Last::Dead | Last::Over) | None => {}
                    }
                    Last::Served { servers }
                }
            };
            self.servers.insert(place.clone(), next);
        }
        let answered = |last: &&Last| matches!(last, Last::Served { .. });
        driver.metrics.interposers(self.servers.values().filter(answered).count());
        driver.metrics.unserved(unserved.len());
        let places: Vec<_> = served.iter().map(|record| record.place.as_path()).collect();
        driver.metrics.programs(mounting.servers.tidy(&places));
        remove_orphans(driver, &table, &records)?;
        let noted = records.iter().map(|record| record.place.as_path());
        let mounted = table.iter().filter(|mount| mounts::is_interposed(mount)).map(|mount| mount.point.as_path());
        if let Err(error) = mounting.servers.forget_left(noted.chain(mounted)) {
            tracing::warn!(%error, "what starts left behind stays");
        }
        Ok(all)
    }
}

/// A start that was given up may come to its end all the same, after the volume was unstaged.
fn remove_orphans(driver: &NodeDriver, table: &Table, records: &[Record]) -> Result<(), CallError> {
    let mounting = &driver.mounting;
    for mount in table.iter().filter(|mount| mounts::is_interposed(mount)) {
        let is_noted = |records: &[Record]| records.iter().any(|record| record.place == mount.point);
        // Binds that others make of our mounts were not started by us.
        if is_noted(records) || !mounting.servers.has_started(&mount.point) {
            continue;
        }
        let volume = mounting.volume_of(mount).map_or_else(|| mount.point.display().to_string(), |id| id.to_string());
        let Ok(_guard) = driver.locks.hold(&volume) else { continue };
        if !is_noted(&mounting.records.all()?) {
            tracing::warn!(place = %mount.point.display(), "a mount that nobody asks for any more is taken away");
            mounting.unstage(&mount.point)?;
            driver.metrics.orphan();
        }
    }
    Ok(())
}
