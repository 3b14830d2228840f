//! An embedded DynamoDB for `loyaltyctl serve` and the tests. The store reaches it over loopback,
//! with the same client as the real one.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use dynoxide::Database;
use tokio::{net::TcpListener, sync::oneshot, task::JoinHandle};

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

    /// The endpoint for clients.
    #[must_use]
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
    let text = path.to_str().ok_or_else(|| failed("the path is not UTF-8".to_owned()))?;
    Database::new(text).map_err(|error| failed(error.to_string()))
}
