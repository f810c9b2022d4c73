//! A running mirror, and the MariaDB that tests share.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use lastword::{
    mirror::{self, Config},
    node::Node,
};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::mariadb::MariaDb;

/// The MariaDB that all tests share which do not hurt it; it ends with the last of them.
pub(crate) fn shared() -> Arc<MariaDb> {
    static SHARED: Mutex<Weak<MariaDb>> = Mutex::new(Weak::new());
    let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
    shared.upgrade().unwrap_or_else(|| {
        let mariadb = Arc::new(MariaDb::start());
        *shared = Arc::downgrade(&mariadb);
        mariadb
    })
}

/// A running mirror with its capture; it ends when this is dropped.
pub(crate) struct Running {
    task: JoinHandle<()>,
    shutdown: CancellationToken,
}

impl Running {
    pub(crate) fn start(world: &impl AsRef<Node>, config: &Config) -> Running {
        let shutdown = CancellationToken::new();
        let task = mirror::start(world.as_ref().clone(), config.clone(), shutdown.clone());
        Running { task, shutdown }
    }

    /// Ends it wherever it is, as a crash would.
    pub(crate) fn abort(self) {
        self.task.abort();
    }

    /// Ends it in order.
    pub(crate) async fn stop(mut self) {
        self.shutdown.cancel();
        (&mut self.task).await.unwrap();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}
