//! The tables of a database, and what is asked of them.
//!
//! A row counts as the text of its columns, parted by a character that no text needs, with a mark where something is
//! null. Of each text two 64-bit hashes are taken, and of the rows of a range the sums of both and the count: sums do not
//! depend on the order, and whole rows are hashed, so that values which changed places between rows are seen.

use std::fmt::{self, Write as _};

use super::session::{Follows, rows};
use crate::error::StepError;
use crate::postgres::{Database, quote_literal, quote_name};

/// Parts the columns.
const BETWEEN: &str = "E'\\x1f'";
/// A function of PostgreSQL takes a hundred arguments.
const MOST_ARGUMENTS: usize = 90;

/// A column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Column {
    pub(super) name: String,
    pub(super) is_nullable: bool,
}

/// A table with rows of its own: no partitioned one, whose rows are those of its parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Table {
    pub(super) schema: String,
    pub(super) name: String,
    pub(super) bytes: u64,
    pub(super) columns: Vec<Column>,
    /// Pages of the table itself.
    pub(super) pages: u64,
    /// The columns by which a row is found; empty where none are known. On physical copies it is the place of the row,
    /// which is the same on both sides and the fastest to find.
    pub(super) key: Vec<String>,
    /// The columns by which people know a row, where they are not those of `key`.
    pub(super) label: Vec<String>,
    /// Rows are found by a hash of all they hold, and those that are alike are counted: the table has no key, and rows that
    /// come while it is compared have to be told from rows that differ.
    pub(super) is_bag: bool,
}

/// What stands for the key of a table without one.
const ROW_HASH: &str = "hash of the row";

/// Tables that cannot be compared, and why.
pub(super) type Left = Vec<(String, &'static str)>;

/// All tables of a database; those that are left out apart. `is_physical`: rows lie at the same places on both sides.
pub(super) async fn tables(database: &Database, is_physical: bool, follows: Follows) -> Result<(Vec<Table>, Left), StepError> {
    let sql = "select n.nspname, c.relname, c.relkind::text, c.relpersistence::text, \
            case when c.relkind = 'f' then 0 else pg_table_size(c.oid) end, \
            (select json_agg(json_build_array(a.attname, not a.attnotnull) order by a.attnum) from pg_attribute a \
              where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped), \
            (select json_agg(a.attname order by k.place) from pg_index i, unnest(i.indkey::int2[]) with ordinality k(attnum, place), \
              pg_attribute a where i.indexrelid = (select i.indexrelid from pg_index i where i.indrelid = c.oid and i.indisunique \
                and i.indisvalid and i.indimmediate and i.indpred is null and i.indexprs is null \
                and not exists (select from pg_attribute a where a.attrelid = c.oid and a.attnum = any(i.indkey) and not a.attnotnull) \
                order by not i.indisprimary, i.indnatts, i.indexrelid limit 1) \
              and k.place <= i.indnkeyatts and a.attrelid = c.oid and a.attnum = k.attnum), \
            case when c.relkind = 'f' then 0 else pg_relation_size(c.oid) / current_setting('block_size')::int end \
        from pg_class c join pg_namespace n on n.oid = c.relnamespace \
        where c.relkind in ('r', 'm', 'f') and c.relpersistence <> 't' and n.nspname <> 'information_schema' \
          and n.nspname !~ '^pg_' order by 1, 2";
    let (mut found, mut left) = (Vec::new(), Vec::new());
    for row in rows(database, "list the tables", sql).await? {
        let text = |at: usize| row.get(at).cloned().flatten().unwrap_or_default();
        let (schema, name) = (text(0), text(1));
        let title = format!("{schema}.{name}");
        if text(2) == "f" {
            left.push((title, "it is a foreign table: its rows are elsewhere"));
            continue;
        }
        if text(3) == "u" && follows != Follows::Neither {
            left.push((title, "it is unlogged: its rows do not follow"));
            continue;
        }
        if text(2) == "m" && follows.is_by_rows() {
            left.push((title, "it is a materialized view: what it holds does not follow by rows"));
            continue;
        }
        let columns: Vec<(String, bool)> = serde_json::from_str(&text(5)).unwrap_or_default();
        let (mut key, mut label): (Vec<String>, _) = (serde_json::from_str(&text(6)).unwrap_or_default(), Vec::new());
        if is_physical {
            label = std::mem::replace(&mut key, vec!["ctid".to_owned()]);
        }
        let is_bag = key.is_empty() && follows.is_by_rows();
        if is_bag {
            key = vec![ROW_HASH.to_owned()];
        }
        found.push(Table {
            schema,
            name,
            bytes: text(4).parse().unwrap_or(0),
            columns: columns.into_iter().map(|(name, is_nullable)| Column { name, is_nullable }).collect(),
            pages: text(7).parse().unwrap_or(0),
            key,
            label,
            is_bag,
        });
    }
    Ok((found, left))
}

/// A part of a table: from a key, included, until another, excluded.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Range {
    pub(super) from: Option<Vec<String>>,
    pub(super) until: Option<Vec<String>>,
}

impl Table {
    /// For people, and the name under which both sides know it.
    pub(super) fn title(&self) -> String {
        format!("{}.{}", self.schema, self.name)
    }

    fn sql_name(&self) -> String {
        format!("{}.{}", quote_name(&self.schema), quote_name(&self.name))
    }

    /// The key's columns as they stand in SQL.
    fn key_names(&self) -> Vec<String> {
        if self.is_bag {
            return vec![format!("hashtextextended({}, 0)", self.row())];
        }
        self.key.iter().map(|name| if name == "ctid" { name.clone() } else { quote_name(name) }).collect()
    }

    /// The same as texts, under names of their own: who orders by a column must not get its text's order.
    fn key_texts(&self) -> String {
        let texts: Vec<String> = self.key_names().iter().enumerate().map(|(at, name)| format!("{name}::text as k{at}")).collect();
        texts.join(", ")
    }

    /// The text of a row.
    fn row(&self) -> String {
        let mut pieces: Vec<String> = self.columns.iter().map(|column| quote_name(&column.name)).collect();
        let nullable: Vec<String> =
            self.columns.iter().filter(|column| column.is_nullable).map(|column| quote_name(&column.name)).collect();
        for some in nullable.chunks(MOST_ARGUMENTS) {
            // Nulls leave no trace in the text. Which ones they are stands behind it, where there are any.
            let any: Vec<String> = some.iter().map(|name| format!("{name} is null")).collect();
            pieces.push(format!("case when {} then row({})::text end", any.join(" or "), any.join(", ")));
        }
        if pieces.is_empty() {
            return "''".to_owned();
        }
        while pieces.len() > 1 || !pieces[0].starts_with("concat_ws") {
            pieces = pieces.chunks(MOST_ARGUMENTS).map(|some| format!("concat_ws({BETWEEN}, {})", some.join(", "))).collect();
        }
        pieces.swap_remove(0)
    }

    fn place(&self, range: &Range) -> String {
        let names = self.key_names().join(", ");
        let values = |key: &[String]| key.iter().map(|value| quote_literal(value)).collect::<Vec<_>>().join(", ");
        let mut conditions = Vec::new();
        if let Some(from) = &range.from {
            conditions.push(format!("({names}) >= ({})", values(from)));
        }
        if let Some(until) = &range.until {
            conditions.push(format!("({names}) < ({})", values(until)));
        }
        if conditions.is_empty() { String::new() } else { format!(" where {}", conditions.join(" and ")) }
    }

    /// Count and both sums of a range.
    pub(super) fn sums(&self, range: &Range) -> String {
        format!(
            "select count(*), sum(hashtextextended(r, 0)), sum(hashtextextended(r, 1)) \
             from (select {} as r from only {}{} offset 0) as rows",
            self.row(),
            self.sql_name(),
            self.place(range)
        )
    }

    /// Key, label and hashes of each row of a range.
    pub(super) fn list(&self, range: &Range) -> String {
        format!("{}{} offset 0) as rows{}", self.listing(), self.place(range), self.counted())
    }

    /// The same of these keys.
    pub(super) fn list_keys(&self, keys: &[Vec<String>]) -> String {
        let value = |key: &Vec<String>| {
            let values: Vec<String> = key.iter().map(|value| quote_literal(value)).collect();
            format!("({})", values.join(", "))
        };
        let (names, values) = (self.key_names().join(", "), keys.iter().map(value).collect::<Vec<_>>().join(", "));
        format!("{} where ({names}) in ({values}) offset 0) as rows{}", self.listing(), self.counted())
    }

    fn counted(&self) -> &'static str {
        if self.is_bag { " group by k0" } else { "" }
    }

    fn listing(&self) -> String {
        let names: Vec<String> = (0..self.key.len()).map(|at| format!("k{at}")).collect();
        let label = match self.label.iter().map(|name| quote_name(name)).collect::<Vec<_>>() {
            names if names.is_empty() => "null".to_owned(),
            names => format!("concat_ws(', ', {})", names.join(", ")),
        };
        if self.is_bag {
            let sums = "count(*) || ':' || sum(hashtextextended(r, 1))";
            return format!(
                "select k0, null, {sums} from (select {}, {} as r from only {}",
                self.key_texts(),
                self.row(),
                self.sql_name()
            );
        }
        format!(
            "select {}, label, hashtextextended(r, 0) || ':' || hashtextextended(r, 1) \
             from (select {}, {label} as label, {} as r from only {}",
            names.join(", "),
            self.key_texts(),
            self.row(),
            self.sql_name()
        )
    }

    /// The key at which so many rows of a range lie before it.
    pub(super) fn nth(&self, range: &Range, offset: u64) -> String {
        let names = self.key_names().join(", ");
        let texts = self.key_texts();
        format!("select {} from only {}{} order by {names} offset {offset} limit 1", texts, self.sql_name(), self.place(range))
    }

    /// Some keys, spread over the table, in order.
    pub(super) fn some_keys(&self, percent: f64) -> String {
        let names = self.key_names().join(", ");
        let texts = self.key_texts();
        format!("select {} from only {} tablesample system ({percent:.6}) order by {names}", texts, self.sql_name())
    }

    /// A range in words.
    pub(super) fn told(&self, range: &Range) -> String {
        let names = self.key.join(", ");
        let mut text = String::new();
        if let Some(from) = &range.from {
            let _ = write!(text, " from {}", Key(from));
        }
        if let Some(until) = &range.until {
            let _ = write!(text, " until before {}", Key(until));
        }
        if text.is_empty() { "all of it".to_owned() } else { format!("({names}){text}") }
    }
}

/// A key in words.
pub(super) struct Key<'a>(pub(super) &'a [String]);

impl fmt::Display for Key<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let short = |value: &String| {
            let cut: String = value.chars().take(60).collect();
            if cut.len() < value.len() { format!("{cut}…") } else { cut }
        };
        let values: Vec<String> = self.0.iter().map(short).collect();
        write!(f, "({})", values.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(columns: usize) -> Table {
        let column = |at| Column { name: format!("c{at}"), is_nullable: at % 2 == 1 };
        Table {
            schema: "s".to_owned(),
            name: "t\"".to_owned(),
            bytes: 0,
            columns: (0..columns).map(column).collect(),
            pages: 0,
            key: vec!["c0".to_owned()],
            label: Vec::new(),
            is_bag: false,
        }
    }

    #[test]
    fn a_row_is_one_text_however_many_columns_it_has() {
        assert_eq!(table(0).row(), "''");
        assert_eq!(table(1).row(), "concat_ws(E'\\x1f', \"c0\")");
        let two = "concat_ws(E'\\x1f', \"c0\", \"c1\", case when \"c1\" is null then row(\"c1\" is null)::text end)";
        assert_eq!(table(2).row(), two);
        let many = table(1000).row();
        assert!(many.starts_with("concat_ws(E'\\x1f', concat_ws(") && many.contains("\"c999\""), "{many}");
    }

    #[test]
    fn ranges_are_told_and_asked_alike() {
        let range = Range { from: Some(vec!["it's".to_owned()]), until: Some(vec!["z".to_owned()]) };
        let (table, all) = (table(1), Range::default());
        assert_eq!(table.told(&range), "(c0) from (it's) until before (z)");
        assert_eq!(table.told(&all), "all of it");
        assert!(
            table.sums(&range).contains("from only \"s\".\"t\"\"\" where (\"c0\") >= ('it''s') and (\"c0\") < ('z') offset 0")
        );
        assert!(!table.sums(&all).contains("where"));
    }

    #[test]
    fn rows_without_a_key_are_found_by_their_hash_and_counted() {
        let bag = Table { key: vec![ROW_HASH.to_owned()], is_bag: true, ..table(1) };
        let range = Range { from: Some(vec!["-5".to_owned()]), until: None };
        let (hash, row) = ("hashtextextended(concat_ws(E'\\x1f', \"c0\"), 0)", "concat_ws(E'\\x1f', \"c0\")");
        assert_eq!(
            bag.list(&range),
            format!(
                "select k0, null, count(*) || ':' || sum(hashtextextended(r, 1)) from (select {hash}::text as k0, {row} as r \
                 from only \"s\".\"t\"\"\" where ({hash}) >= ('-5') offset 0) as rows group by k0"
            )
        );
        assert_eq!(bag.told(&range), "(hash of the row) from (-5)");
    }
}
