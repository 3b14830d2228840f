//! An embedded DynamoDB for `loyaltyctl serve` and the tests. The store reaches it over loopback,
//! with the same client as the real one.

use std::{
    fs::{OpenOptions, Permissions},
    net::{Ipv4Addr, SocketAddr},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use dynoxide::Database;
use rand::RngExt;
use tokio::{net::TcpListener, sync::oneshot, task::JoinHandle};

use crate::secret::os_rng;

/// Where the embedded DynamoDB keeps its tables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Storage {
    /// In memory; lost when the process ends.
    Memory,
    /// In this `SQLite` file; kept when the process ends or is killed.
    File(PathBuf),
}

/// A DynamoDB that listens on loopback until it is dropped or [stopped](Embedded::stop).
#[derive(Debug)]
pub struct Embedded {
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    serving: JoinHandle<Result<(), String>>,
}

/// Why the embedded DynamoDB did not start, or failed.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct EngineError(String);

impl Embedded {
    /// Opens the tables and listens on `address`. Port 0 means any free port.
    ///
    /// # Errors
    /// [`EngineError`] when the file cannot be opened or the address is taken.
    pub async fn start(storage: &Storage, address: SocketAddr) -> Result<Self, EngineError> {
        let database = match storage {
            Storage::Memory => Database::memory().map_err(|error| EngineError(error.to_string()))?,
            Storage::File(path) => open(path)?,
        };
        let listener = TcpListener::bind(address)
            .await
            .map_err(|error| EngineError(format!("cannot listen on {address}: {error}")))?;
        let address = listener.local_addr().map_err(|error| EngineError(error.to_string()))?;
        let (stop, stopped) = oneshot::channel();
        let serving = tokio::spawn(dynoxide::server::serve_with_shutdown(listener, database, async {
            let _ = stopped.await;
        }));
        Ok(Self { address, stop, serving })
    }

    /// As [`start`](Self::start), on an address of loopback that no web page can guess. Through one
    /// that it can, any page could read and change the tables: the engine checks no credentials,
    /// and its answers allow every page to read them.
    ///
    /// # Errors
    /// [`EngineError`] when the file cannot be opened.
    pub async fn start_hidden(storage: &Storage) -> Result<Self, EngineError> {
        // 127.0.0.0/8 is loopback as a whole (RFC 1122, 3.2.1.3).
        let hidden = Ipv4Addr::from(0x7f00_0000 + os_rng().random_range(0x1_0000..0xff_0000));
        // Some systems have no address of loopback but 127.0.0.1.
        let has_it = TcpListener::bind((hidden, 0)).await.is_ok();
        Self::start(storage, (if has_it { hidden } else { Ipv4Addr::LOCALHOST }, 0).into()).await
    }

    /// The endpoint for clients.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Lets running requests finish and closes the file.
    ///
    /// # Errors
    /// [`EngineError`] when the server failed.
    pub async fn stop(self) -> Result<(), EngineError> {
        drop(self.stop);
        match self.serving.await {
            Ok(served) => served.map_err(EngineError),
            Err(error) => Err(EngineError(error.to_string())),
        }
    }
}

fn open(path: &Path) -> Result<Database, EngineError> {
    let failed = |reason: String| EngineError(format!("cannot open {}: {reason}", path.display()));
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        std::fs::create_dir_all(folder).map_err(|error| failed(error.to_string()))?;
    }
    // The engine would create a file that every user can read.
    let file = OpenOptions::new().create(true).append(true).mode(0o600).open(path);
    let kept = file.and_then(|file| file.set_permissions(Permissions::from_mode(0o600)));
    kept.map_err(|error| failed(error.to_string()))?;
    let text = path.to_str().ok_or_else(|| failed("the path is not UTF-8".to_owned()))?;
    Database::new(text).map_err(|error| failed(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_hidden_engine_has_another_address_each_time() {
        let (first, second) =
            tokio::join!(Embedded::start_hidden(&Storage::Memory), Embedded::start_hidden(&Storage::Memory));
        let (first, second) = (first.unwrap().address, second.unwrap().address);
        assert!(first.ip().is_loopback() && second.ip().is_loopback());
        assert_ne!(first.ip(), second.ip());
        assert_ne!(first.ip(), Ipv4Addr::LOCALHOST);
    }
}
