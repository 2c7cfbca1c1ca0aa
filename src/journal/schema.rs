//! Opens the database: knows our files from others, and makes a new one.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OpenFlags, TransactionBehavior};

use super::{FILE, JournalError};

/// `FERY`: says in the file's header whose it is.
pub(super) const APPLICATION: i64 = 0x4645_5259;
/// The format that this version writes.
pub(super) const VERSION: i64 = 1;
/// How long to wait for another process that writes.
const PATIENCE: Duration = Duration::from_secs(10);

/// Times are microseconds since 1970 in UTC. `events.sum` is the CRC-32 of `json`.
const TABLES: &str = "
    CREATE TABLE runs (
        key INTEGER PRIMARY KEY,
        id TEXT NOT NULL UNIQUE,
        pipeline TEXT NOT NULL,
        by TEXT NOT NULL,
        status TEXT NOT NULL,
        started INTEGER NOT NULL,
        ended INTEGER
    ) STRICT;
    CREATE TABLE events (
        run INTEGER NOT NULL REFERENCES runs (key),
        seq INTEGER NOT NULL,
        at INTEGER NOT NULL,
        sum INTEGER NOT NULL,
        json TEXT NOT NULL,
        PRIMARY KEY (run, seq)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE leases (
        run TEXT PRIMARY KEY,
        token INTEGER NOT NULL,
        holder TEXT,
        since INTEGER NOT NULL,
        renewed INTEGER NOT NULL,
        expires INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE locks (
        name TEXT PRIMARY KEY,
        run TEXT NOT NULL,
        step TEXT NOT NULL,
        since INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE inbox (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        run TEXT NOT NULL,
        at INTEGER NOT NULL,
        json TEXT NOT NULL
    ) STRICT;
    CREATE INDEX inbox_by_run ON inbox (run);
";

/// What a file turned out to be.
enum Found {
    Empty,
    Ours,
}

pub(super) fn open(dir: &Path, max_size: Option<u64>) -> Result<Connection, JournalError> {
    let path = dir.join(FILE);
    create_folder(dir)?;
    refuse_emptied(&path)?;
    create_file(&path)?;
    let of = |error: rusqlite::Error| JournalError::of(&path, &error);
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_with_flags(&path, flags).map_err(of)?;
    connection.busy_timeout(PATIENCE).map_err(of)?;
    connection.set_prepared_statement_cache_capacity(64);
    // Before anything is set: even `journal_mode` writes into the header.
    let found = identify(&connection, &path)?;
    if connection.is_readonly("main").map_err(of)? {
        return Err(JournalError::Unwritable { path, why: "the file is read-only".to_owned() });
    }
    connection.execute_batch("PRAGMA synchronous = FULL; PRAGMA fullfsync = ON; PRAGMA foreign_keys = ON;").map_err(of)?;
    use_log(&connection).map_err(of)?;
    if let Some(bytes) = max_size {
        let page: i64 = connection.query_row("PRAGMA page_size", [], |row| row.get(0)).map_err(of)?;
        let pages = i64::try_from(bytes).unwrap_or(i64::MAX) / page.max(1);
        connection.query_row(&format!("PRAGMA max_page_count = {pages}"), [], |_| Ok(())).map_err(of)?;
    }
    if matches!(found, Found::Empty) {
        create(&mut connection, &path)?;
    }
    Ok(connection)
}

pub(super) fn open_reader(dir: &Path) -> Result<Connection, JournalError> {
    let path = dir.join(FILE);
    if !path.exists() {
        return Err(JournalError::Missing { dir: dir.to_owned() });
    }
    refuse_emptied(&path)?;
    let of = |error: rusqlite::Error| JournalError::of_reading(&path, &error);
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_URI;
    let attempt = |path: &Path| -> Result<(Connection, Found), JournalError> {
        let connection = Connection::open_with_flags(path, flags).map_err(of)?;
        connection.busy_timeout(PATIENCE).map_err(of)?;
        connection.set_prepared_statement_cache_capacity(32);
        let found = identify(&connection, &dir.join(FILE)).map_err(|error| match error {
            JournalError::Unwritable { path, why } => JournalError::Unreadable { path, why },
            other => other,
        })?;
        Ok((connection, found))
    };
    let opened = match attempt(&path) {
        // A folder where nothing can be written has no place for the shared memory of WAL. When no log is left beside
        // the database, all is in the database, and nobody can be writing.
        Err(JournalError::Unreadable { .. }) if !has_log(&path) => attempt(&immutable(&path)),
        other => other,
    };
    match opened? {
        (connection, Found::Ours) => Ok(connection),
        (_, Found::Empty) => Err(JournalError::Missing { dir: dir.to_owned() }),
    }
}

fn has_log(path: &Path) -> bool {
    let mut log = path.as_os_str().to_owned();
    log.push("-wal");
    std::fs::metadata(PathBuf::from(log)).is_ok_and(|log| log.len() > 0)
}

/// SQLite takes an empty file for a new database and throws the log beside it away: what is left of a run would go.
fn refuse_emptied(path: &Path) -> Result<(), JournalError> {
    let is_empty = std::fs::metadata(path).is_ok_and(|file| file.len() == 0);
    if is_empty && has_log(path) {
        return Err(JournalError::Damaged { path: path.to_owned(), what: "it is empty, but its log is not".to_owned() });
    }
    Ok(())
}

fn immutable(path: &Path) -> PathBuf {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let escaped = absolute.to_string_lossy().replace('%', "%25").replace('?', "%3f").replace('#', "%23");
    PathBuf::from(format!("file://{escaped}?immutable=1"))
}

/// Says whose file it is. Reads only.
fn identify(connection: &Connection, path: &Path) -> Result<Found, JournalError> {
    let of = |error: rusqlite::Error| JournalError::of(path, &error);
    let number = |pragma: &str| connection.query_row(&format!("PRAGMA {pragma}"), [], |row| row.get::<_, i64>(0)).map_err(of);
    // At one moment: another process may be making the tables right now.
    connection.execute_batch("SAVEPOINT look").map_err(of)?;
    let application = number("application_id")?;
    let version = number("user_version")?;
    let tables: i64 = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0)).map_err(of)?;
    connection.execute_batch("RELEASE look").map_err(of)?;
    match (application, version, tables) {
        (0, 0, 0) => Ok(Found::Empty),
        (APPLICATION, VERSION, 1..) => Ok(Found::Ours),
        (APPLICATION, found, _) if found > VERSION => Err(JournalError::Newer { path: path.to_owned(), found, known: VERSION }),
        (APPLICATION, found, _) => Err(JournalError::Damaged {
            path: path.to_owned(),
            what: format!("its format {found} was never written by any ferry"),
        }),
        _ => Err(JournalError::Foreign { path: path.to_owned() }),
    }
}

fn create(connection: &mut Connection, path: &Path) -> Result<(), JournalError> {
    let of = |error: rusqlite::Error| JournalError::of(path, &error);
    // Two processes may both have found nothing: the second waits here, looks again and finds the tables.
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(of)?;
    if matches!(identify(&transaction, path)?, Found::Empty) {
        transaction.execute_batch(TABLES).map_err(of)?;
        transaction
            .execute_batch(&format!("PRAGMA application_id = {APPLICATION}; PRAGMA user_version = {VERSION};"))
            .map_err(of)?;
    }
    transaction.commit().map_err(of)
}

/// Wherever the folder is, what is in the file is for its owner only; SQLite gives the files beside it the same mode.
fn create_file(path: &Path) -> Result<(), JournalError> {
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    match options.open(path) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(JournalError::Unwritable { path: path.to_owned(), why: error.to_string() }),
    }
}

/// WAL, which a file remembers. Only the very first switch needs the file for itself, and SQLite does not wait for that:
/// two who make a journal at once would both be told that it is busy.
fn use_log(connection: &Connection) -> Result<(), rusqlite::Error> {
    let begun = std::time::Instant::now();
    loop {
        match connection.query_row("PRAGMA journal_mode = WAL", [], |_| Ok(())) {
            Err(error) if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) && begun.elapsed() < PATIENCE => {
                std::thread::sleep(Duration::from_millis(5));
            }
            other => return other,
        }
    }
}

/// The folder holds what people said and programs printed: it is for its owner only.
fn create_folder(dir: &Path) -> Result<(), JournalError> {
    if dir.is_dir() {
        return Ok(());
    }
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    let unwritable = |error: std::io::Error| JournalError::Unwritable { path: dir.to_owned(), why: error.to_string() };
    builder.create(dir).map_err(unwritable)?;
    // Runs are not for version control. A failure here harms nobody.
    let _ = std::fs::write(dir.join(".gitignore"), "*\n");
    Ok(())
}
