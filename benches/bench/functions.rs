//! The functions that are compared, as `make bench` has built them.

use std::{
    fs,
    path::{Path, PathBuf},
    process,
};

use tokio::process::Command;

use crate::{
    DynamoDb,
    common::{TABLE, events::function_environment, runtime_api::Runtime},
};

/// The roots that a function trusts, and the variable that names them.
#[derive(Clone, Copy)]
pub enum Trust {
    /// Amazon's roots, which this project has built in.
    Amazon(&'static str),
    /// Those of the operating system, which is the usual default.
    System(&'static str),
}

pub struct Function {
    pub name: String,
    program: PathBuf,
    arguments: Vec<PathBuf>,
    trust: Trust,
    /// What is zipped and deployed: a file or a folder.
    package: PathBuf,
}

const OURS: &str = "target/lambda/loyalty-codes/bootstrap";

impl Function {
    fn rust(name: &str, program: PathBuf, trust: Trust) -> Self {
        Self { name: name.to_owned(), package: program.clone(), program, arguments: Vec::new(), trust }
    }

    pub fn ours() -> Self {
        Self::rust("loyalty-codes", in_project(OURS), Trust::Amazon("AWS_CA_BUNDLE"))
    }

    pub fn node() -> Self {
        Self {
            name: "Node.js, SDK v3".to_owned(),
            program: interpreter("node", ["-e", "console.log(process.execPath)"]),
            arguments: vec![in_project("benches/functions/node/dist/index.cjs")],
            trust: Trust::Amazon("NODE_EXTRA_CA_CERTS"),
            package: in_project("benches/functions/node/dist"),
        }
    }

    pub fn python() -> Self {
        Self {
            name: "Python, boto3".to_owned(),
            program: interpreter("python3", ["-c", "import sys; print(sys.executable)"]),
            arguments: vec![in_project("target/functions/python/function.py")],
            trust: Trust::System("AWS_CA_BUNDLE"),
            package: in_project("target/functions/python"),
        }
    }

    pub fn all() -> [Self; 5] {
        let built = |name: &str| in_project("target/functions/release").join(name);
        [
            Self::ours(),
            Self::rust("hello, lambda_http", built("hello"), Trust::System("UNUSED")),
            Self::rust("Rust, default features", built("default-features"), Trust::System("SSL_CERT_FILE")),
            Self::node(),
            Self::python(),
        ]
    }

    /// Another build of the function, from `NAME=PATH`, or `NAME=PATH,system` for all roots of the system.
    pub fn build(argument: &str) -> Self {
        let (name, path) = argument.split_once('=').unwrap();
        let (path, trust) = match path.strip_suffix(",system") {
            Some(path) => (path, Trust::System("AWS_CA_BUNDLE")),
            None => (path, Trust::Amazon("AWS_CA_BUNDLE")),
        };
        Self::rust(name, PathBuf::from(path), trust)
    }

    /// The command by which Lambda starts it, run by `wrapper` if that is not empty.
    pub fn command(&self, runtime: &Runtime, dynamodb: &DynamoDb, wrapper: &[&str]) -> Command {
        let mut words = wrapper.iter().map(PathBuf::from).chain([self.program.clone()]);
        let mut command = runtime.function(words.next().unwrap());
        command.args(words).args(&self.arguments).envs(function_environment(&dynamodb.endpoint, TABLE));
        match self.trust {
            Trust::Amazon(variable) => command.env(variable, dynamodb.amazon_roots()),
            Trust::System(variable) => command.env(variable, dynamodb.system_roots()),
        };
        command
    }

    /// The size of the deployment package, in bytes.
    pub fn zip_size(&self) -> u64 {
        let folder = tempfile::tempdir().unwrap();
        let zip = folder.path().join("function.zip");
        let script = "
import os, sys, zipfile
package, target = sys.argv[1:]
with zipfile.ZipFile(target, 'w', zipfile.ZIP_DEFLATED, compresslevel=9) as zip:
    if os.path.isfile(package):
        zip.write(package, 'bootstrap')
    for folder, _, files in os.walk(package):
        for file in files:
            if not file.endswith('.pyc'):
                path = os.path.join(folder, file)
                zip.write(path, os.path.relpath(path, package))";
        let zipped =
            process::Command::new("python3").args(["-c", script]).arg(&self.package).arg(&zip).status();
        assert!(zipped.unwrap().success(), "{}", self.package.display());
        fs::metadata(zip).unwrap().len()
    }
}

fn in_project(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// The path of an interpreter, as the interpreter itself reports it. The program on `PATH` may be a shim
/// that searches at every start, and functions get no `PATH`.
fn interpreter(program: &str, ask: [&str; 2]) -> PathBuf {
    let output = process::Command::new(program).args(ask).output().unwrap();
    PathBuf::from(String::from_utf8(output.stdout).unwrap().trim())
}
