//! Files that commands write.

use std::path::Path;

use tempfile::NamedTempFile;

use crate::failure::Failure;

/// A file that only its owner can read, without a name yet, in the folder of `path`. It is deleted
/// unless it is given the name `path`.
///
/// # Errors
/// A refusal when `path` exists, even as a link to nothing, and a failure when no file can be
/// written there.
pub fn new_file(path: &Path) -> Result<NamedTempFile, Failure> {
    if path.symlink_metadata().is_ok() {
        return Err(Failure::refused(format!("{} is there already; name another file", path.display())));
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    NamedTempFile::new_in(folder.unwrap_or_else(|| Path::new(".")))
        .map_err(|error| Failure::failed(format!("{}: {error}", path.display())))
}
