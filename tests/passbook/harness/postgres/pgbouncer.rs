//! PgBouncer between server and PostgreSQL, where it is installed (scripts/postgres installs it).

use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use tempfile::TempDir;

use crate::harness::{
    eventually,
    servers::{PostgresServer, as_server_user, free_port, server_user},
};

const PROGRAMS: [&str; 3] =
    ["/usr/sbin/pgbouncer", "/usr/bin/pgbouncer", "/usr/local/bin/pgbouncer"];

/// A running PgBouncer, killed when dropped.
pub struct PgBouncer {
    port: u16,
    process: Child,
    directory: TempDir,
}

impl PgBouncer {
    /// Starts it in front of this server, with additional settings. None if it is not installed.
    pub async fn start(server: &PostgresServer, lines: &[&str]) -> Option<Self> {
        let program = PROGRAMS.iter().find(|program| Path::new(program).exists())?;
        let directory = tempfile::Builder::new().prefix("passbook-pgbouncer.").tempdir_in("/tmp");
        let directory = directory.expect("a directory for temporary files");
        let port = free_port();
        std::fs::write(directory.path().join("users"), "\"postgres\" \"\"\n").expect("a file");
        let settings = [
            format!("[databases]\n* = host=127.0.0.1 port={}", server.port),
            "[pgbouncer]\nlisten_addr = 127.0.0.1\nunix_socket_dir =\nauth_type = trust".to_owned(),
            format!("listen_port = {port}\nauth_file = {}", file(&directory, "users").display()),
            lines.join("\n"),
        ];
        let settings = settings.join("\n") + "\n";
        std::fs::write(file(&directory, "settings"), settings).expect("a file");
        if let Some(user) = server_user() {
            let mut chown = Command::new("chown");
            let owned = chown.args(["-R", &user]).arg(directory.path()).status();
            assert!(owned.expect("chown runs").success());
        }
        let log = std::fs::File::create(file(&directory, "log")).expect("a log");
        let mut command = as_server_user(program);
        command.arg(file(&directory, "settings")).stdin(Stdio::null());
        command.stdout(log.try_clone().expect("a log")).stderr(log);
        let process = command.spawn().expect("pgbouncer starts");
        let pooler = Self { port, process, directory };
        let address = ("127.0.0.1", port);
        let up = async || tokio::net::TcpStream::connect(address).await.is_ok();
        eventually("PgBouncer takes connections", up).await;
        Some(pooler)
    }

    pub fn url(&self) -> String {
        format!("postgres://postgres@127.0.0.1:{}/postgres?sslmode=disable", self.port)
    }
}

fn file(directory: &TempDir, name: &str) -> PathBuf {
    directory.path().join(name)
}

impl Drop for PgBouncer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        if std::thread::panicking() {
            let log = std::fs::read_to_string(file(&self.directory, "log")).unwrap_or_default();
            println!("---- log of PgBouncer ----\n{log}");
        }
    }
}
