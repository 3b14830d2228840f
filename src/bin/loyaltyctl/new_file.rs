//! Files that commands write. They may contain card numbers, identifiers and test codes, so none is
//! left behind when a command is interrupted.

use std::{
    io,
    path::{Path, PathBuf},
    process,
    sync::{
        Mutex, MutexGuard, Once, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use tempfile::NamedTempFile;
use tokio::signal::unix::SignalKind;

use crate::{failure::Failure, serve::Signals};

/// A file that only its owner can read, without a name yet, in the folder of `path`. It is deleted
/// unless it is given the name `path`.
///
/// # Errors
/// A refusal when `path` exists, even as a link to nothing, or stands for standard output, and a
/// failure when no file can be written there.
pub fn new_file(path: &Path) -> Result<NamedTempFile, Failure> {
    if path == Path::new("-") {
        return Err(Failure::usage(
            "- is no file: this is written to a file only, which appears when it is complete; ./- is one of that name",
        ));
    }
    if path.symlink_metadata().is_ok() {
        return Err(Failure::refused(format!("{} is there already; name another file", path.display())));
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    temporary(|| NamedTempFile::new_in(folder.unwrap_or_else(|| Path::new("."))))
        .map_err(|error| Failure::failed(format!("{}: {error}", path.display())))
}

/// The temporary files of this process. Some may have got their names or be deleted.
static TEMPORARY: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

fn temporary_files() -> MutexGuard<'static, Vec<PathBuf>> {
    TEMPORARY.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A temporary file that is deleted, too, when the process is interrupted or terminated.
///
/// # Errors
/// When the file cannot be made, or signals cannot be handled.
pub fn temporary(make: impl FnOnce() -> io::Result<NamedTempFile>) -> io::Result<NamedTempFile> {
    static HANDLED: Once = Once::new();
    let mut signals = Some(Signals::new()?);
    HANDLED.call_once(|| {
        if let Some(mut signals) = signals.take() {
            tokio::spawn(async move {
                loop {
                    let signal = signals.next().await;
                    let is_of_editor = signal == SignalKind::interrupt() && EDITING.load(Ordering::SeqCst);
                    if !is_of_editor {
                        end(signal);
                    }
                }
            });
        }
    });
    // While a file is made, no signal ends the process.
    let mut files = temporary_files();
    let file = make()?;
    files.push(file.path().to_owned());
    Ok(file)
}

/// Gives a temporary file its present path for good.
///
/// # Errors
/// When it cannot be kept.
pub fn keep(file: NamedTempFile) -> io::Result<PathBuf> {
    let (_, path) = file.keep().map_err(|error| error.error)?;
    temporary_files().retain(|temporary| *temporary != path);
    Ok(path)
}

/// Deletes the temporary files, and ends the process with the exit code that shells have for the
/// signal.
pub fn end(signal: SignalKind) -> ! {
    let files = temporary_files();
    for file in files.iter() {
        let _ = std::fs::remove_file(file); // it may have got its name
    }
    process::exit(128 + signal.as_raw_value())
}

/// Whether an editor has the terminal. Its Ctrl-C is sent to this process, too.
static EDITING: AtomicBool = AtomicBool::new(false);

/// Runs `edit`, during which SIGINT is left to the editor.
pub fn while_editing<T>(edit: impl FnOnce() -> T) -> T {
    EDITING.store(true, Ordering::SeqCst);
    let done = edit();
    EDITING.store(false, Ordering::SeqCst);
    done
}
