//! The database: one thread that writes, with one commit for all requests that wait; listings read beside it.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use rusqlite::{Connection, OpenFlags, Transaction, TransactionBehavior, ffi};
use thiserror::Error;
use tokio::sync::oneshot;

use super::locks::HOLDERS;
use super::metrics::Commits;
use super::page;
use super::pools::{Pools, Result, SCHEMA, SCHEMA_VERSION, StoreError};

/// Requests in one commit at most: one fsync is thin enough by then, and the first of them waits for the last.
const MAX_BATCH: usize = 256;

/// The database is only ever locked by our own writer and its checkpoints, which take milliseconds.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

/// The indexes of a pool of a million tokens: claims in it must not read them from the disk again and again.
const CACHE_KIB: i64 = 128 << 10;

/// A checkpoint costs two more fsyncs; with SQLite's 1000 pages there would be many a second.
const CHECKPOINT_PAGES: i64 = 8000;

/// Connections kept for reading: more than this many listings at once open their own.
const MAX_READERS: usize = 8;

/// Why a directory's pools could not be opened.
#[derive(Debug, Error)]
pub enum OpenError {
    /// The directory itself.
    #[error("{}: {source}", path.display())]
    Directory {
        /// What was asked for.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Another process holds the lock.
    #[error("{}: another token server has these pools open", .0.display())]
    InUse(PathBuf),
    /// The database.
    #[error("{}: {source}", path.display())]
    Database {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: rusqlite::Error,
    },
    /// A file that this program did not make, or that a later one did.
    #[error("{}: layout version {found}, this program knows {SCHEMA_VERSION}", path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// Its `user_version`.
        found: i64,
    },
    /// The writing thread.
    #[error("cannot start a thread: {0}")]
    Thread(#[source] io::Error),
}

/// Why no request of a commit was carried out; all of them share it.
type Failure = Arc<rusqlite::Error>;
/// What the writer does for one request, inside the transaction and at a Unix time (or not, where there is none);
/// it gives back how to answer after the commit.
type Job = Box<dyn FnOnce(std::result::Result<(&Transaction<'_>, i64), Failure>) -> Answer + Send>;
type Answer = Box<dyn FnOnce(std::result::Result<(), Failure>) + Send>;

/// The pools of a directory. Dropping it lets the writer end; see [`Database::open`].
pub(super) struct Database {
    jobs: Sender<Job>,
    path: PathBuf,
    /// Idle ones.
    readers: Arc<Mutex<Vec<Connection>>>,
    pub(super) commits: Arc<Commits>,
}

impl Database {
    /// Opens the pools in `dir`, which is made if there is none. The thread ends, with everything written and
    /// the directory free for another server, once the `Database` is dropped.
    pub(super) fn open(dir: &Path) -> std::result::Result<(Self, JoinHandle<()>), OpenError> {
        let hold = hold(dir)?;
        let path = dir.join("pools.sqlite");
        let connection = connect(&path)?;
        let (jobs, queue) = mpsc::channel();
        let commits = Arc::new(Commits::default());
        let counted = commits.clone();
        let writer = thread::Builder::new()
            .name("writer".to_owned())
            .spawn(move || {
                write(connection, &queue, &counted);
                drop(hold);
            })
            .map_err(OpenError::Thread)?;
        Ok((Self { jobs, path, readers: Arc::default(), commits }, writer))
    }

    /// Does `work` in the writer's transaction; the result comes when it is on the disk.
    pub(super) async fn write<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Pools<'_>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (reply, answer) = oneshot::channel();
        let job: Job = Box::new(move |place| {
            let result = match place {
                // A client that hung up while it waited must not take a token with it.
                _ if reply.is_closed() => Err(StoreError::Dropped),
                Ok((transaction, now)) => in_savepoint(transaction, now, work),
                Err(failure) => Err(StoreError::Commit(failure)),
            };
            Box::new(move |commit| {
                // The receiver may be gone by now; the protocol has lock timeouts for that.
                let _ = reply.send(result.and_then(|done| commit.map(|()| done).map_err(StoreError::Commit)));
            })
        });
        self.jobs.send(job).map_err(|_| StoreError::Dropped)?;
        answer.await.map_err(|_| StoreError::Dropped)?
    }

    /// Does `work` beside the writer, on what is committed: a long listing delays no claim.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Pools<'_>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let readers = self.readers.clone();
        let path = self.path.clone();
        let read = move || {
            let idle = readers.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let connection = match idle {
                Some(connection) => connection,
                None => open_reader(&path)?,
            };
            // One snapshot for all statements, so that a count and its rows agree.
            let snapshot = connection.unchecked_transaction()?;
            let result = work(&Pools { db: &snapshot, now: now() });
            drop(snapshot);
            let mut readers = readers.lock().unwrap_or_else(PoisonError::into_inner);
            if readers.len() < MAX_READERS {
                readers.push(connection);
            }
            result
        };
        tokio::task::spawn_blocking(read).await.map_err(|_| StoreError::Dropped)?
    }
}

fn open_reader(path: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    Ok(connection)
}

/// Makes `dir` and locks it for this process; the kernel lets go however the process ends.
fn hold(dir: &Path) -> std::result::Result<Flock<File>, OpenError> {
    let failed = |source| OpenError::Directory { path: dir.to_owned(), source };
    // Tokens are their owners': not every account of this host is to read them.
    DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(failed)?;
    let handle = File::open(dir).map_err(failed)?;
    Flock::lock(handle, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| match errno {
        Errno::EWOULDBLOCK => OpenError::InUse(dir.to_owned()),
        errno => failed(errno.into()),
    })
}

fn connect(path: &Path) -> std::result::Result<Connection, OpenError> {
    let failed = |source| OpenError::Database { path: path.to_owned(), source };
    // SQLite gives its other files the mode of this one.
    let made = OpenOptions::new().append(true).create(true).mode(0o600).open(path);
    made.map_err(|source| OpenError::Directory { path: path.to_owned(), source })?;
    let mut db = Connection::open(path).map_err(failed)?;
    db.busy_timeout(BUSY_TIMEOUT).map_err(failed)?;
    db.pragma_update(None, "journal_mode", "WAL").map_err(failed)?;
    // In WAL mode only FULL syncs at every commit; NORMAL may lose the last ones with the power.
    db.pragma_update(None, "synchronous", "FULL").map_err(failed)?;
    db.pragma_update(None, "cache_size", -CACHE_KIB).map_err(failed)?;
    db.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES).map_err(failed)?;
    // More than there are statements, so that none is ever parsed twice.
    db.set_prepared_statement_cache_capacity(64);
    match db.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(failed)? {
        SCHEMA_VERSION => {}
        0 => {
            let transaction = db.transaction().map_err(failed)?;
            transaction.execute_batch(SCHEMA).map_err(failed)?;
            transaction.pragma_update(None, "user_version", SCHEMA_VERSION).map_err(failed)?;
            transaction.commit().map_err(failed)?;
        }
        found => return Err(OpenError::Version { path: path.to_owned(), found }),
    }
    db.execute_batch(HOLDERS).map_err(failed)?;
    page::prepare(&db).map_err(failed)?;
    Ok(db)
}

/// The writer's life: whatever has queued up while the last commit was on its way to the disk is the next one.
fn write(mut db: Connection, queue: &Receiver<Job>, commits: &Commits) {
    while let Ok(first) = queue.recv() {
        let batch: Vec<Job> = std::iter::once(first).chain(queue.try_iter().take(MAX_BATCH - 1)).collect();
        let size = batch.len();
        let began = Instant::now();
        let (answers, outcome) = commit(&mut db, batch);
        commits.count(size, began.elapsed(), outcome.is_ok());
        answers.into_iter().for_each(|answer| answer(outcome.clone()));
    }
}

fn commit(db: &mut Connection, batch: Vec<Job>) -> (Vec<Answer>, std::result::Result<(), Failure>) {
    let transaction = match db.transaction_with_behavior(TransactionBehavior::Immediate) {
        Ok(transaction) => transaction,
        Err(error) => {
            let failure = Arc::new(error);
            return (batch.into_iter().map(|job| job(Err(failure.clone()))).collect(), Err(failure));
        }
    };
    let now = now();
    let mut answers = Vec::with_capacity(batch.len());
    for job in batch {
        // A full disk makes SQLite undo the whole transaction; what follows would be outside of any.
        let undone = transaction.is_autocommit();
        answers.push(job(if undone { Err(undone_failure()) } else { Ok((&transaction, now)) }));
    }
    if transaction.is_autocommit() {
        return (answers, Err(undone_failure()));
    }
    (answers, transaction.commit().map_err(Arc::new))
}

/// For the neighbours of the request that a full or broken disk has failed; that one has its own words.
fn undone_failure() -> Failure {
    Arc::new(rusqlite::Error::SqliteFailure(ffi::Error::new(ffi::SQLITE_ABORT_ROLLBACK), None))
}

/// One request's failure must undo that request and no other of the batch.
fn in_savepoint<T>(transaction: &Transaction<'_>, now: i64, work: impl FnOnce(&Pools<'_>) -> Result<T>) -> Result<T> {
    let run = |sql| transaction.prepare_cached(sql)?.execute([]);
    run("SAVEPOINT request")?;
    let result = work(&Pools { db: transaction, now });
    if result.is_err() && !transaction.is_autocommit() {
        run("ROLLBACK TO request")?;
    }
    if !transaction.is_autocommit() {
        run("RELEASE request")?;
    }
    result
}

/// Unix seconds.
fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block_on<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
    }

    #[test]
    fn pools_outlive_the_server_and_have_one_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let pools = dir.path().join("new");
        let (database, writer) = Database::open(&pools).unwrap();
        block_on(database.write(|pools| pools.add("p", "text/plain", ["a"]))).unwrap();
        let Err(error) = Database::open(&pools) else { panic!("two servers on one directory") };
        assert_eq!(error.to_string(), format!("{}: another token server has these pools open", pools.display()));
        drop(database);
        writer.join().unwrap();
        let (database, _) = Database::open(&pools).unwrap();
        assert_eq!(block_on(database.read(|pools| pools.counts("p"))).unwrap(), (1, 0));
    }

    #[test]
    fn a_failed_request_undoes_itself_and_not_its_neighbours() {
        let dir = tempfile::tempdir().unwrap();
        let (database, _) = Database::open(dir.path()).unwrap();
        let fails = database.write(|pools| {
            pools.add("p", "text/plain", ["half"])?;
            Err::<(), _>(StoreError::Dropped)
        });
        let works = database.write(|pools| pools.add("p", "text/plain", ["whole"]));
        let (fails, works) = block_on(async { tokio::join!(fails, works) });
        assert!(fails.is_err());
        works.unwrap();
        assert_eq!(block_on(database.read(|pools| pools.counts("p"))).unwrap(), (1, 0));
    }

    /// What a full disk does amid a commit, when SQLite has to write before its end.
    #[test]
    fn nothing_is_half_done_where_the_transaction_is_undone() {
        let dir = tempfile::tempdir().unwrap();
        let (database, _) = Database::open(dir.path()).unwrap();
        let add = |name: &'static str| database.write(move |pools| pools.add("p", "text/plain", [name]));
        // Keeps the writer busy until all three wait for the next commit.
        let (begin, busy) = mpsc::channel::<()>();
        let slow = database.write(move |_| {
            let _ = busy.recv();
            Ok(())
        });
        let undone = database.write(|pools| {
            pools.db.execute_batch("ROLLBACK")?;
            Err::<(), _>(StoreError::Database(rusqlite::Error::InvalidQuery))
        });
        let (before, after) = (add("before"), add("after"));
        let (_, before, undone, after, ()) =
            block_on(async { tokio::join!(biased; slow, before, undone, after, async { drop(begin) }) });
        assert!(before.unwrap_err().may_pass());
        assert_eq!(undone.unwrap_err().to_string(), "pools.sqlite: Query is not read-only");
        assert!(after.unwrap_err().may_pass());
        assert_eq!(block_on(database.read(|pools| pools.counts("p"))).unwrap(), (0, 0));
        block_on(add("later")).unwrap();
        assert_eq!(block_on(database.read(|pools| pools.counts("p"))).unwrap(), (1, 0));
    }

    #[test]
    fn who_hung_up_while_waiting_gets_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let (database, writer) = Database::open(dir.path()).unwrap();
        block_on(async {
            // Keeps the writer busy until the second request has been given up.
            let (begin, busy) = mpsc::channel::<()>();
            let slow = database.write(move |_| {
                let _ = busy.recv();
                Ok(())
            });
            let given_up = async {
                let mut add = Box::pin(database.write(|pools| pools.add("p", "text/plain", ["a"])));
                tokio::select! { biased; _ = &mut add => panic!("answered"), () = std::future::ready(()) => {} }
                drop(add);
                drop(begin);
            };
            let (slow, ()) = tokio::join!(slow, given_up);
            slow.unwrap();
        });
        let counts = block_on(database.read(|pools| pools.counts("p")));
        drop(database);
        writer.join().unwrap();
        assert_eq!(counts.unwrap(), (0, 0));
    }

    #[test]
    fn a_file_of_before_gets_the_index_of_descriptions() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pools.sqlite");
        let there = || {
            let db = Connection::open(&path).unwrap();
            db.prepare("SELECT 1 FROM sqlite_master WHERE name = 'holders'").unwrap().exists([]).unwrap()
        };
        connect(&path).unwrap().execute_batch("DROP INDEX holders").unwrap();
        assert!(!there());
        connect(&path).unwrap();
        assert!(there());
    }

    #[test]
    fn the_file_of_a_later_version_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pools.sqlite");
        Connection::open(&path).unwrap().pragma_update(None, "user_version", 7).unwrap();
        let Err(error) = Database::open(dir.path()) else { panic!("opened") };
        assert_eq!(error.to_string(), format!("{}: layout version 7, this program knows 1", path.display()));
    }
}
