//! What `vestnik doctor` tries on a query: everything but data.

use tokio::time::timeout;

use super::failure::{Failure, Trouble};
use super::held::Held;
use super::ids::{Asked, IdType};
use super::{SqlSource, pool::chain};
use crate::domain::RecordKind;

pub(super) const NO_ID: &str = "its query gives no column `id`";

/// Columns with a meaning whose names have capitals: without quotes PostgreSQL makes them small.
const WITH_CAPITALS: [&str; 4] = ["telegramChatId", "contactId", "companyId", "managerId"];

/// A query's outside.
pub(super) struct Description {
    pub(super) id_type: IdType,
    pub(super) columns: Vec<String>,
}

/// What was seen of the database and of each query.
#[derive(Debug)]
pub struct Checked {
    /// The server's version, when it could be reached.
    pub server: Result<String, Trouble>,
    /// Empty when it could not.
    pub queries: Vec<(RecordKind, Result<String, Trouble>)>,
}

impl SqlSource {
    /// Connects, and tries each query without ids.
    pub async fn check(&self) -> Checked {
        let server = match self.limited(self.server()).await {
            Ok(version) => version,
            Err(trouble) => return Checked { server: Err(trouble), queries: Vec::new() },
        };
        let mut queries = Vec::new();
        for kind in self.kinds() {
            queries.push((kind, self.limited(self.try_query(kind)).await));
        }
        Checked { server: Ok(server), queries }
    }

    async fn limited<T>(&self, read: impl Future<Output = Result<T, Failure>>) -> Result<T, Trouble> {
        let answer = timeout(self.time_limit, read).await.unwrap_or_else(|_| Err(Failure::late(self.time_limit)));
        answer.map_err(|failure| match failure {
            Failure::Away(error) => {
                let hint = "is the database running, is records.sql.url right, and is records.sql.timeout_ms enough?";
                Trouble::new(chain(&*error), hint)
            }
            Failure::Refused(trouble) | Failure::Rows(trouble) => trouble,
        })
    }

    async fn server(&self) -> Result<String, Failure> {
        let mut held = Held::of(&self.pool).await?;
        let tx = held.begin().await?;
        let asked = tx.query_one("select current_setting('server_version')", &[]).await;
        drop(tx);
        held.give_back(asked.and_then(|row| row.try_get(0)).map_err(Failure::away))
    }

    /// Prepares the query, to learn what `$1` is and which columns it gives.
    pub(super) async fn describe(&self, kind: RecordKind) -> Result<Description, Failure> {
        let query = self.query(kind)?;
        let mut held = Held::of(&self.pool).await?;
        let tx = held.begin().await?;
        // Not cached: a table may have changed since, and this is not asked often.
        let prepared = tx.prepare(&query.as_columns).await;
        drop(tx);
        let described = prepared.map_err(|error| Failure::of(query, &query.as_columns, error)).and_then(|statement| {
            let id_type = IdType::of(statement.params()).map_err(Failure::Refused)?;
            let columns: Vec<String> = statement.columns().iter().map(|column| column.name().to_owned()).collect();
            if columns.iter().any(|column| column == "id") {
                Ok(Description { id_type, columns })
            } else {
                let hint = "name it so: `select client_no as id, …`";
                Err(Failure::Refused(Trouble::new(NO_ID, hint)))
            }
        });
        held.give_back(described)
    }

    async fn try_query(&self, kind: RecordKind) -> Result<String, Failure> {
        let Description { id_type, columns } = self.describe(kind).await?;
        refuse_names(&columns).map_err(Failure::Refused)?;
        // What only running it shows: whether this user may read all of it, and whether it writes.
        let query = self.query(kind)?;
        let failed = |error| Failure::of(query, &query.as_json, error);
        let mut held = Held::of(&self.pool).await?;
        let tx = held.begin().await?;
        let ran = tx.query_raw(&query.as_json, [Asked::new(id_type, Vec::new()).parameter()]).await;
        let ran = match ran {
            Ok(rows) => futures::TryStreamExt::try_next(&mut std::pin::pin!(rows)).await.map_err(failed),
            Err(error) => Err(failed(error)),
        };
        drop(tx);
        match held.give_back(ran)? {
            None => Ok(format!("ids are {}; gives {}", id_type.name(), columns.join(", "))),
            Some(_) => Err(Failure::Rows(Trouble::new(
                "its query gives rows without being asked for any",
                "take the ids as `where id = any($1)`",
            ))),
        }
    }
}

fn refuse_names(columns: &[String]) -> Result<(), Trouble> {
    for (at, column) in columns.iter().enumerate() {
        if columns[..at].contains(column) {
            return Err(Trouble::new(format!("its query gives two columns `{column}`"), "name one of them otherwise"));
        }
        let meant = WITH_CAPITALS.iter().find(|name| *name != column && name.eq_ignore_ascii_case(column));
        if let Some(meant) = meant {
            return Err(Trouble::new(
                format!("its query gives a column `{column}`, and `{meant}` is meant"),
                format!("PostgreSQL writes names small unless they are quoted: `as \"{meant}\"`"),
            ));
        }
    }
    Ok(())
}
