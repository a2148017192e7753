//! Pages of the table `commits` for readers of all of it. A row can be large: a commit that records
//! 5,000 expired holds has 1.75 MB. So a page is bounded by its bytes, too.

/// The most bytes of events in a page, unless its first commit alone has more. Lower, and round trips
/// count.
pub const COMMIT_PAGE_BYTES_MAX: usize = 2 << 20;
/// The most rows in a page, which are those whose sizes the statement looks at.
const PAGE_ROWS_MAX: usize = 2000;

/// The statement for these columns of the next page after the number `after`, in order of the numbers.
/// The first empty page is the end.
pub fn page_of_commits(columns: &str, after: &str) -> String {
    format!(
        "SELECT {columns} FROM commits WHERE number > {after} AND number <= (\
             SELECT max(number) FROM (\
                 SELECT number, sum(size) OVER (ORDER BY number) - size AS size_before FROM (\
                     SELECT number, octet_length(transaction_ids) \
                         + coalesce(octet_length(other_events), 0) AS size \
                     FROM commits WHERE number > {after} ORDER BY number LIMIT {PAGE_ROWS_MAX}\
                 ) sizes) sums \
             WHERE size_before < {COMMIT_PAGE_BYTES_MAX}) \
         ORDER BY number"
    )
}

#[cfg(test)]
mod tests {
    use sea_orm::ConnectionTrait;
    use tempfile::TempDir;

    use super::*;
    use crate::storage::{Store, connect::session::Role, dialect::DatabaseKind};

    #[tokio::test]
    async fn a_page_is_bounded_by_rows_and_bytes() {
        let directory = TempDir::new().unwrap();
        let store = Store::for_tests(&directory).await;
        // Ids of 1.5 MB, texts of 1.5 MB, more than a page has, and many small rows. In a text, two
        // bytes are one character.
        let insert = "WITH RECURSIVE numbers(value) AS (\
                SELECT 1 UNION ALL SELECT value + 1 FROM numbers WHERE value < 5000) \
            INSERT INTO commits (number, create_time_us, transaction_ids, other_events) \
            SELECT value, 1, zeroblob(iif(value BETWEEN 11 AND 14, 1500000, 0)), \
                CASE WHEN value BETWEEN 15 AND 18 THEN replace(hex(zeroblob(375000)), '0', 'é') \
                    WHEN value = 20 THEN hex(zeroblob(3000000)) END \
            FROM numbers";
        let writer = store.open(Role::Maintenance).await.unwrap();
        writer.execute_unprepared(insert).await.unwrap();

        let sql = page_of_commits("number", "$1");
        let (mut ends, mut last) = (Vec::new(), 0_i64);
        loop {
            let statement = DatabaseKind::Sqlite.statement(sql.as_str(), [last.into()]);
            let rows = writer.query_all_raw(statement).await.unwrap();
            if rows.is_empty() {
                break;
            }
            for row in rows {
                last += 1;
                assert_eq!(row.try_get_by_index::<i64>(0).unwrap(), last, "each once and in order");
            }
            ends.push(last);
        }
        assert_eq!(ends, [12, 14, 16, 18, 20, 2020, 4020, 5000]);
    }
}
