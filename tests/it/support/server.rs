//! A PostgreSQL of a test's own, to be taken down.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use incident_manager::embedded::{self, Embedded, Options};
use sqlx::PgConnection;
use tempfile::TempDir;

use super::database::connect;

pub struct Server {
    pub embedded: Embedded,
    _dir: TempDir,
}

impl Server {
    pub async fn start() -> Self {
        // the server's user must be able to pass through it, as root too
        let mut builder = tempfile::Builder::new();
        let dir = builder.permissions(std::fs::Permissions::from_mode(0o711)).tempdir_in(Path::new("/tmp")).unwrap();
        Self { embedded: embedded::start(Options::for_tests(dir.path())).await.unwrap(), _dir: dir }
    }

    pub async fn connect(&self) -> PgConnection {
        connect(self.embedded.url().expose()).await
    }

    pub async fn stop(self) {
        self.embedded.stop().await.unwrap();
    }
}
