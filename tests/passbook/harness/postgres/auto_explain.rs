//! The plans that PostgreSQL really executed. Its module auto_explain writes each with rows and pages
//! into the server's log, also a plan that a session made long ago and has kept.

use sea_orm::ConnectionTrait;
use serde_json::Value;

use super::servers::PostgresServer;

/// Plans are logged in full, those of statements within functions, too. A line of the log begins with
/// the process and the application's name.
const SETTINGS: [&str; 8] = [
    "auto_explain.log_min_duration=0",
    "auto_explain.log_analyze=on",
    "auto_explain.log_buffers=on",
    "auto_explain.log_timing=off",
    "auto_explain.log_nested_statements=on",
    "auto_explain.log_format=json",
    "log_line_prefix=%p %a|",
    // It would have the plans made again.
    "autovacuum=off",
];

/// Starts a PostgreSQL of which every session, from now on, has its plans logged.
pub async fn start() -> PostgresServer {
    let postgres = PostgresServer::start_in(None, &SETTINGS).await;
    let session = postgres.session().await;
    if let Err(error) = session.execute_unprepared("LOAD 'auto_explain'").await {
        panic!(
            "this test needs PostgreSQL's module auto_explain, which Fedora has in the package \
             postgresql-contrib and Debian with the server: {error}"
        );
    }
    session.close().await.expect("the session ends");
    postgres.execute("ALTER ROLE postgres SET session_preload_libraries = 'auto_explain'").await;
    postgres
}

/// One execution of one statement.
pub struct Execution {
    /// The session's process.
    pub process: String,
    pub statement: String,
    /// What EXPLAIN calls the plan.
    plan: Value,
}

/// All executions of an application's statements in a part of the log. None if its last message is
/// still being written.
pub fn executions(log: &str, application: &str) -> Option<Vec<Execution>> {
    let mut messages: Vec<String> = Vec::new();
    for line in log.lines() {
        match (line.strip_prefix('\t'), messages.last_mut()) {
            (Some(rest), Some(message)) => message.extend([rest, "\n"]),
            _ => messages.push(line.to_owned()),
        }
    }
    let last = messages.len().saturating_sub(1);
    let mut executions = Vec::new();
    for (index, message) in messages.iter().enumerate() {
        match execution(message, application) {
            Ok(execution) => executions.extend(execution),
            Err(_) if index == last => return None,
            Err(error) => panic!("{error} in the log of PostgreSQL: {message}"),
        }
    }
    Some(executions)
}

/// None if the message is of something else.
fn execution(message: &str, application: &str) -> serde_json::Result<Option<Execution>> {
    let json = message.split_once(' ').and_then(|(process, rest)| {
        let text = rest.strip_prefix(application)?.strip_prefix("|LOG:  duration: ")?;
        Some((process.to_owned(), text.split_once("plan:")?.1))
    });
    let Some((process, json)) = json else { return Ok(None) };
    let mut logged: Value = serde_json::from_str(json)?;
    let statement = logged["Query Text"].as_str().expect("the statement").to_owned();
    Ok(Some(Execution { process, statement, plan: logged["Plan"].take() }))
}

impl Execution {
    /// Pages (8 KiB) of tables and indexes that it touched.
    pub fn pages(&self) -> i64 {
        let count = |key: &str| self.plan[key].as_i64().expect("a number of pages");
        count("Shared Hit Blocks") + count("Shared Read Blocks")
    }

    /// The most rows of these tables that one step of it looked at, those that it left out among
    /// them.
    pub fn rows(&self, tables: &[&str]) -> i64 {
        self.steps(tables).map(rows).max().unwrap_or_default()
    }

    /// What the planner thought it would cost: the same only for a plan that was kept.
    pub fn cost(&self) -> String {
        self.plan["Total Cost"].to_string()
    }

    /// Whether it reads or writes one of these tables.
    pub fn names_any(&self, tables: &[&str]) -> bool {
        self.steps(tables).next().is_some()
    }

    /// Steps that read one of these tables otherwise than by a key.
    pub fn scans(&self, tables: &[&str]) -> Vec<String> {
        let is_scan = |node: &&Value| match node["Node Type"].as_str().unwrap_or_default() {
            "Index Scan" | "Index Only Scan" | "Bitmap Index Scan" => node["Index Cond"].is_null(),
            // Below the first is what searches the index.
            "Bitmap Heap Scan" | "ModifyTable" => false,
            _ => true,
        };
        let name = |node: &Value| {
            let name = |key: &str| node[key].as_str().unwrap_or_default();
            format!("{} {} {}", name("Node Type"), name("Relation Name"), name("Index Name"))
        };
        self.steps(tables).filter(is_scan).map(name).collect()
    }

    /// The steps that touch these tables. One that searches an index for a bitmap does not say of
    /// which table, and counts.
    fn steps(&self, tables: &[&str]) -> impl Iterator<Item = &Value> {
        self.nodes().into_iter().filter(|node| match node["Relation Name"].as_str() {
            Some(table) => tables.contains(&table),
            None => !node["Index Name"].is_null(),
        })
    }

    fn nodes(&self) -> Vec<&Value> {
        let mut nodes = vec![&self.plan];
        let mut next = 0;
        while let Some(node) = nodes.get(next) {
            next += 1;
            nodes.extend(node["Plans"].as_array().into_iter().flatten());
        }
        nodes
    }
}

fn rows(node: &Value) -> i64 {
    let looked_at = ["Actual Rows", "Rows Removed by Filter", "Rows Removed by Index Recheck"];
    // Means of one loop; newer versions write them with decimals.
    let of_a_loop: f64 = looked_at.iter().filter_map(|key| node[key].as_f64()).sum();
    (of_a_loop * node["Actual Loops"].as_f64().unwrap_or_default()).round() as i64
}
