//! A connection to a database: questions and orders, with errors that say what was being done.

use tokio::io::{AsyncRead, AsyncWrite};
use tokio_postgres::types::{FromSqlOwned, ToSql};
use tokio_postgres::{Client, Connection, Row, SimpleQueryMessage};

use super::classify;
use crate::error::StepError;

/// A connection to one database of a server. It is closed when this is dropped.
pub struct Database {
    client: Client,
    title: String,
}

impl std::fmt::Debug for Database {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_tuple("Database").field(&self.title).finish()
    }
}

impl Database {
    pub(super) fn new<S, T>(client: Client, connection: Connection<S, T>, title: &str) -> Self
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
        T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let shown = title.to_owned();
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(server = shown, %error, "a connection to PostgreSQL ended");
            }
        });
        Self { client, title: title.to_owned() }
    }

    /// The server in messages.
    pub fn title(&self) -> &str {
        &self.title
    }

    /// Whether the connection is gone.
    pub fn is_closed(&self) -> bool {
        self.client.is_closed()
    }

    /// The client itself, for transactions, copies and pipelines.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// The same, for transactions.
    pub fn client_mut(&mut self) -> &mut Client {
        &mut self.client
    }

    /// An error of a statement, told as of this server. `doing` completes "cannot …".
    pub fn failed(&self, doing: &str, error: tokio_postgres::Error) -> StepError {
        classify::statement(&self.title, doing, error)
    }

    /// The rows that a question gives.
    pub async fn rows(&self, doing: &str, sql: &str, values: &[&(dyn ToSql + Sync)]) -> Result<Vec<Row>, StepError> {
        self.client.query(sql, values).await.map_err(|error| self.failed(doing, error))
    }

    /// The first column of the one row that a question gives.
    pub async fn one<T: FromSqlOwned>(&self, doing: &str, sql: &str, values: &[&(dyn ToSql + Sync)]) -> Result<T, StepError> {
        let row = self.client.query_one(sql, values).await.map_err(|error| self.failed(doing, error))?;
        row.try_get(0).map_err(|error| self.failed(doing, error))
    }

    /// The first column of a row that may not be there.
    pub async fn maybe<T: FromSqlOwned>(
        &self,
        doing: &str,
        sql: &str,
        values: &[&(dyn ToSql + Sync)],
    ) -> Result<Option<T>, StepError> {
        let row = self.client.query_opt(sql, values).await.map_err(|error| self.failed(doing, error))?;
        row.map(|row| row.try_get(0).map_err(|error| self.failed(doing, error))).transpose()
    }

    /// One or more statements without values, in one round trip and without a prepared statement: what poolers and
    /// consoles understand. Outside of a transaction unless it begins one.
    pub async fn orders(&self, doing: &str, sql: &str) -> Result<(), StepError> {
        self.client.batch_execute(sql).await.map_err(|error| self.failed(doing, error))
    }

    /// The same, with all that was said.
    pub async fn said(&self, doing: &str, sql: &str) -> Result<Vec<SimpleQueryMessage>, StepError> {
        self.client.simple_query(sql).await.map_err(|error| self.failed(doing, error))
    }
}

/// A name as it stands in SQL: `"a ""b"""`.
pub fn quote_name(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A text as it stands in SQL, whatever `standard_conforming_strings` says.
pub fn quote_literal(text: &str) -> String {
    let quoted = text.replace('\'', "''");
    if quoted.contains('\\') { format!(" E'{}'", quoted.replace('\\', "\\\\")) } else { format!("'{quoted}'") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_texts_are_quoted() {
        assert_eq!(quote_name(r#"a "b""#), r#""a ""b""""#);
        assert_eq!(quote_literal("it's"), "'it''s'");
        assert_eq!(quote_literal(r"a\'b"), r" E'a\\''b'");
    }
}
