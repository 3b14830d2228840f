//! An embedded DynamoDB: the engine that `loyaltyctl serve` and the tests run on, reached over loopback by
//! the same client as the real one.

use std::{
    fmt,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use dynoxide::{
    Database,
    actions::{
        describe_stream::DescribeStreamRequest, get_records::GetRecordsRequest,
        get_shard_iterator::GetShardIteratorRequest, list_streams::ListStreamsRequest,
    },
    errors::DynoxideError,
};
use serde_json::Value;
use tokio::{net::TcpListener, sync::oneshot, task::JoinHandle};

/// Where the embedded DynamoDB keeps its tables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Storage {
    /// Gone with the process.
    Memory,
    /// In this `SQLite` file, which survives a restart and a kill.
    File(PathBuf),
}

/// A DynamoDB that listens on loopback until it is dropped or [stopped](Embedded::stop).
pub struct Embedded {
    address: SocketAddr,
    database: Database,
    stop: Option<oneshot::Sender<()>>,
    serving: JoinHandle<Result<(), String>>,
}

/// Why the embedded DynamoDB did not start, or failed.
#[derive(Debug)]
pub struct EngineError(String);

impl fmt::Display for EngineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for EngineError {}

impl From<DynoxideError> for EngineError {
    fn from(error: DynoxideError) -> Self {
        Self(error.to_string())
    }
}

impl fmt::Debug for Embedded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Embedded({})", self.address)
    }
}

impl Embedded {
    /// Opens the tables and listens on `address`; with port 0, on one that is free.
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
        let serving =
            tokio::spawn(dynoxide::server::serve_with_shutdown(listener, database.clone(), async {
                let _ = stopped.await;
            }));
        Ok(Self { address, database, stop: Some(stop), serving })
    }

    /// The endpoint for clients.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The stream of a table, from now on.
    ///
    /// # Errors
    /// [`EngineError`] when the table has none.
    pub fn stream(&self, table: &str) -> Result<Stream, EngineError> {
        let list = ListStreamsRequest { table_name: Some(table.to_owned()), ..ListStreamsRequest::default() };
        let streams = self.database.list_streams(list)?.streams;
        let stream = streams.into_iter().next();
        let stream_arn =
            stream.ok_or_else(|| EngineError(format!("table {table} has no stream")))?.stream_arn;
        let describe =
            DescribeStreamRequest { stream_arn: stream_arn.clone(), ..DescribeStreamRequest::default() };
        let shards = self.database.describe_stream(describe)?.stream_description.shards;
        let shard = shards.into_iter().next();
        let shard_id = shard.ok_or_else(|| EngineError(format!("the stream of {table} is empty")))?.shard_id;
        let latest = GetShardIteratorRequest {
            stream_arn,
            shard_id,
            shard_iterator_type: "LATEST".to_owned(),
            sequence_number: None,
        };
        let iterator = self.database.get_shard_iterator(latest)?.shard_iterator;
        Ok(Stream { database: self.database.clone(), iterator })
    }

    /// Lets running requests finish and closes the file.
    ///
    /// # Errors
    /// [`EngineError`] when the server had failed.
    pub async fn stop(mut self) -> Result<(), EngineError> {
        drop(self.stop.take());
        match self.serving.await {
            Ok(served) => served.map_err(EngineError),
            Err(error) => Err(EngineError(error.to_string())),
        }
    }
}

/// What is written to a table, as DynamoDB Streams tells it.
pub struct Stream {
    database: Database,
    iterator: Option<String>,
}

impl Stream {
    /// The items that were put since the last call, as DynamoDB JSON.
    ///
    /// # Errors
    /// [`EngineError`] when the stream cannot be read.
    pub fn inserted(&mut self) -> Result<Vec<Value>, EngineError> {
        let Some(shard_iterator) = self.iterator.take() else { return Ok(Vec::new()) };
        let read = self.database.get_records(GetRecordsRequest { shard_iterator, limit: None })?;
        self.iterator = read.next_shard_iterator;
        let inserted = read.records.into_iter().filter(|record| record.event_name == "INSERT");
        let images = inserted.filter_map(|record| record.dynamodb.new_image);
        images
            .map(|image| serde_json::to_value(image).map_err(|error| EngineError(error.to_string())))
            .collect()
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
