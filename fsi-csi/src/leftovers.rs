//! Volumes that were begun by a driver that was killed: nobody may ever ask for them again, so they are taken away.

use std::sync::Arc;
use std::time::Duration;

use crate::bounded;
use crate::driver::{NodeDriver, Reach};
use crate::error::CallError;

/// How often. Also while the driver runs something may be left: what could not be taken away at once.
const PERIOD: Duration = Duration::from_secs(600);
/// The time that anybody waits; what takes longer goes on.
const LIMIT: Duration = Duration::from_secs(60);

/// Sweeps until it is dropped. In a pool of several nodes it does not: what is begun there may be another driver's, who is at it.
pub async fn sweep(driver: Arc<NodeDriver>) {
    if driver.reach == Reach::Everywhere {
        return std::future::pending().await;
    }
    loop {
        if let Err(error) = all(&driver).await {
            tracing::warn!(%error, "volumes that were begun are left");
        }
        tokio::time::sleep(PERIOD).await;
    }
}

async fn all(driver: &NodeDriver) -> Result<(), CallError> {
    let pool = driver.mounting.pool.clone();
    let unfinished = bounded::work("looking for volumes that were begun", LIMIT, (), move || pool.unfinished()).await?;
    for id in unfinished {
        // Who has it makes it whole or takes it away.
        let Ok(guard) = driver.locks.hold(id.as_str()) else { continue };
        let (pool, of) = (driver.mounting.pool.clone(), id.clone());
        match bounded::work("taking away what was begun", LIMIT, guard, move || pool.abandon(&of)).await {
            Ok(()) => tracing::info!(volume = %id, "a volume that was begun and not made was taken away"),
            Err(error) => tracing::warn!(%error, volume = %id, "a volume that was begun and not made is left"),
        }
    }
    Ok(())
}
