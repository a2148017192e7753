//! A proxy between server and PostgreSQL that misbehaves on command.
//!
//! It understands only the framing of the wire protocol: a type byte, four bytes of length, the
//! body. Connections must not use TLS: see `TestDatabase::url_at`.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
};

/// Longest first, since the shorter one is its prefix.
const ROW_LOCKS: [&[u8]; 2] = [b"FOR UPDATE SKIP LOCKED", b"FOR UPDATE"];

/// Cuts a connection in its next transaction.
#[derive(Clone, Copy, Debug)]
pub struct TransactionCut {
    /// Counts the round trips of the transaction from its BEGIN on, which is number 0.
    pub round_trip: usize,
    pub side: Side,
}

/// Which part of a round trip is lost.
#[derive(Clone, Copy, Debug)]
pub enum Side {
    Call,
    Answer,
}

/// A proxy on its own port. Its connections end when it is dropped.
pub struct PostgresProxy {
    pub address: SocketAddr,
    control: Arc<Control>,
    _connections: JoinSet<()>,
}

#[derive(Default)]
struct Control {
    /// The address of the server for new connections.
    target: watch::Sender<String>,
    strips_locks: AtomicBool,
    locks_stripped: AtomicUsize,
    cuts_before_commit_left: AtomicUsize,
    cuts_after_commit_left: AtomicUsize,
    cuts_made: AtomicUsize,
    /// Where the connection of the next transaction is cut.
    transaction_cut: Mutex<Option<TransactionCut>>,
    freezes_after_cut: AtomicBool,
    round_trips: AtomicUsize,
    drops_options: AtomicBool,
    calls_of_several_statements: AtomicUsize,
    delay_ms: AtomicU64,
    session_delay_ms: AtomicU64,
    frozen: watch::Sender<bool>,
    connections: AtomicUsize,
    dead_connections: AtomicUsize,
}

impl PostgresProxy {
    /// Starts a proxy in front of the server of this URL.
    pub async fn start(database_url: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("a bound port");
        let control = Arc::new(Control::default());
        control.target.send_replace(server_address(database_url));
        let mut connections = JoinSet::new();
        let shared = Arc::clone(&control);
        connections.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let control = Arc::clone(&shared);
                connections.spawn(async move {
                    // An error only ends this connection.
                    let _ = carry(client, &control).await;
                });
            }
        });
        Self { address, control, _connections: connections }
    }

    /// Leads new connections to the server of this URL, as when a name moves. The existing ones stay.
    pub fn move_to(&self, database_url: &str) {
        self.control.target.send_replace(server_address(database_url));
    }

    /// Removes row locks from all statements: `FOR UPDATE` becomes spaces.
    pub fn strip_locks(&self) {
        self.control.strips_locks.store(true, SeqCst);
    }

    pub fn locks_stripped(&self) -> usize {
        self.control.locks_stripped.load(SeqCst)
    }

    /// Cuts the connection before the next commit reaches PostgreSQL.
    pub fn cut_before_next_commit(&self) {
        self.control.cuts_before_commit_left.fetch_add(1, SeqCst);
    }

    /// Cuts the connection after the next commit, before its confirmation reaches the server.
    pub fn cut_after_next_commit(&self) {
        self.control.cuts_after_commit_left.fetch_add(1, SeqCst);
    }

    /// Cuts before the next commit, and then freezes.
    pub fn cut_before_next_commit_and_freeze(&self) {
        self.control.freezes_after_cut.store(true, SeqCst);
        self.cut_before_next_commit();
    }

    /// Cuts after the next commit, and then freezes: the server cannot look up the outcome.
    pub fn cut_after_next_commit_and_freeze(&self) {
        self.control.freezes_after_cut.store(true, SeqCst);
        self.cut_after_next_commit();
    }

    /// Cuts the connection of the next transaction, if it has so many round trips.
    pub fn cut_next_transaction(&self, cut: TransactionCut) {
        *self.control.transaction_cut.lock().expect("no panic") = Some(cut);
    }

    pub fn cuts_made(&self) -> usize {
        self.control.cuts_made.load(SeqCst)
    }

    /// Counts ReadyForQuery messages of PostgreSQL.
    pub fn round_trips(&self) -> usize {
        self.control.round_trips.load(SeqCst)
    }

    /// Removes `options` from new sessions, as a pooler that ignores it does.
    pub fn drop_options(&self) {
        self.control.drops_options.store(true, SeqCst);
    }

    /// Counts messages with several statements.
    pub fn calls_of_several_statements(&self) -> usize {
        self.control.calls_of_several_statements.load(SeqCst)
    }

    /// Delays each request and each answer.
    pub fn delay(&self, delay: Duration) {
        self.control.delay_ms.store(delay.as_millis() as u64, SeqCst);
    }

    /// Delays the start of each new session.
    pub fn delay_sessions(&self, delay: Duration) {
        self.control.session_delay_ms.store(delay.as_millis() as u64, SeqCst);
    }

    /// Stops all traffic in both directions without closing a connection.
    pub fn freeze(&self) {
        self.control.frozen.send_replace(true);
    }

    pub fn thaw(&self) {
        self.control.frozen.send_replace(false);
    }

    /// Silences the existing connections for good, as when an address moves to another host. New
    /// connections work.
    pub fn silence_connections(&self) {
        let all = self.control.connections.load(SeqCst);
        self.control.dead_connections.store(all, SeqCst);
    }
}

impl Control {
    async fn wait_while_frozen(&self, connection: usize) {
        if connection < self.dead_connections.load(SeqCst) {
            std::future::pending::<()>().await;
        }
        let mut frozen = self.frozen.subscribe();
        // The sender lives as long as `self`.
        let _ = frozen.wait_for(|frozen| !*frozen).await;
    }

    /// After a cut.
    fn freeze_if_ordered(&self) {
        if self.freezes_after_cut.swap(false, SeqCst) {
            self.frozen.send_replace(true);
        }
    }

    async fn wait_as_far_away(&self) {
        wait(&self.delay_ms).await;
    }

    fn take(&self, left: &AtomicUsize) -> bool {
        let taken = left.fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1)).is_ok();
        if taken {
            self.cuts_made.fetch_add(1, SeqCst);
        }
        taken
    }
}

async fn wait(delay_ms: &AtomicU64) {
    let delay_ms = delay_ms.load(SeqCst);
    if delay_ms > 0 {
        tokio::time::sleep(Duration::from_millis(delay_ms)).await;
    }
}

/// Forwards one connection until either side closes it, or it is cut.
async fn carry(client: TcpStream, control: &Control) -> io::Result<()> {
    let connection = control.connections.fetch_add(1, SeqCst);
    let target = control.target.borrow().clone();
    control.wait_while_frozen(connection).await;
    wait(&control.session_delay_ms).await;
    let server = TcpStream::connect(target).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (client_reads, client_writes) = client.into_split();
    let (server_reads, server_writes) = server.into_split();
    let (cut_after_commit, cut_answer) = (AtomicBool::new(false), AtomicBool::new(false));
    let to_server = async {
        let (mut reads, mut writes) = (BufReader::new(client_reads), server_writes);
        let mut startup = read_startup(&mut reads).await?;
        if control.drops_options.load(SeqCst) {
            drop_options(&mut startup);
        }
        writes.write_all(&startup).await?;
        let mut packet = Vec::new();
        let mut transaction = None;
        loop {
            let mut message = Message::read(&mut reads).await?;
            if message.begins_write() {
                transaction = control.transaction_cut.lock().expect("no panic").take();
            }
            let is_commit = message.is_commit();
            if is_commit {
                control.wait_while_frozen(connection).await;
                if control.take(&control.cuts_before_commit_left) {
                    control.freeze_if_ordered();
                    return Ok::<(), io::Error>(());
                }
                if control.take(&control.cuts_after_commit_left) {
                    cut_after_commit.store(true, SeqCst);
                }
            }
            if control.strips_locks.load(SeqCst) && message.strip_locks() {
                control.locks_stripped.fetch_add(1, SeqCst);
            }
            // Bytes written together arrive together or not at all, as in a packet.
            let is_whole = !message.has_more_to_come();
            packet.append(&mut message.bytes);
            if is_whole {
                control.wait_while_frozen(connection).await;
                control.wait_as_far_away().await;
                match &mut transaction {
                    Some(TransactionCut { round_trip: 0, side }) => {
                        control.cuts_made.fetch_add(1, SeqCst);
                        match side {
                            Side::Call => return Ok(()),
                            Side::Answer => cut_answer.store(true, SeqCst),
                        }
                        transaction = None;
                    }
                    Some(cut) if !is_commit => cut.round_trip -= 1,
                    _ => transaction = None,
                }
                writes.write_all(&packet).await?;
                packet.clear();
            }
        }
    };
    let to_client = async {
        let (mut reads, mut writes) = (BufReader::new(server_reads), client_writes);
        let mut statements = 0;
        loop {
            let message = Message::read(&mut reads).await?;
            control.wait_while_frozen(connection).await;
            statements += usize::from(message.kind() == b'C');
            if message.kind() == b'Z' && std::mem::take(&mut statements) > 1 {
                control.calls_of_several_statements.fetch_add(1, SeqCst);
            }
            if message.kind() == b'Z' {
                control.wait_as_far_away().await;
                control.round_trips.fetch_add(1, SeqCst);
            }
            if cut_answer.load(SeqCst) {
                return Ok(());
            }
            if cut_after_commit.load(SeqCst) && message.says_committed() {
                control.freeze_if_ordered();
                return Ok::<(), io::Error>(());
            }
            writes.write_all(&message.bytes).await?;
        }
    };
    tokio::select! {
        ended = to_server => ended,
        ended = to_client => ended,
    }
}

/// One message with its type and length.
struct Message {
    bytes: Vec<u8>,
}

impl Message {
    async fn read(source: &mut (impl AsyncRead + Unpin)) -> io::Result<Self> {
        let mut bytes = vec![0; 5];
        source.read_exact(&mut bytes).await?;
        read_rest(source, &mut bytes, 1).await?;
        Ok(Self { bytes })
    }

    fn kind(&self) -> u8 {
        self.bytes[0]
    }

    fn body(&self) -> &[u8] {
        &self.bytes[5..]
    }

    /// The text of a statement to run (Query) or to prepare (Parse, where it follows a name).
    fn statement(&self) -> &[u8] {
        let mut texts = self.body().split(|byte| *byte == 0);
        match self.kind() {
            b'Q' => texts.next().unwrap_or_default(),
            b'P' => texts.nth(1).unwrap_or_default(),
            _ => &[],
        }
    }

    /// The BEGIN of a transaction that writes. Those that only read name their isolation level.
    fn begins_write(&self) -> bool {
        self.statement().trim_ascii_end() == b"BEGIN"
    }

    fn is_commit(&self) -> bool {
        self.statement().get(..6).is_some_and(|start| start.eq_ignore_ascii_case(b"COMMIT"))
    }

    /// Parse, Bind, Describe, Execute or Close, which are followed by a Sync.
    fn has_more_to_come(&self) -> bool {
        matches!(self.kind(), b'P' | b'B' | b'D' | b'E' | b'C')
    }

    /// CommandComplete of a COMMIT.
    fn says_committed(&self) -> bool {
        self.kind() == b'C' && self.body().starts_with(b"COMMIT")
    }

    fn strip_locks(&mut self) -> bool {
        if !matches!(self.kind(), b'Q' | b'P') {
            return false;
        }
        let mut stripped = false;
        for lock in ROW_LOCKS {
            while let Some(at) = self.bytes.windows(lock.len()).position(|window| window == lock) {
                self.bytes[at..at + lock.len()].fill(b' ');
                stripped = true;
            }
        }
        stripped
    }
}

/// The first message of a connection has no type byte.
async fn read_startup(source: &mut (impl AsyncRead + Unpin)) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; 4];
    source.read_exact(&mut bytes).await?;
    read_rest(source, &mut bytes, 0).await?;
    Ok(bytes)
}

/// Removes the parameter `options`: the message is a length, a version, then names and values.
fn drop_options(startup: &mut Vec<u8>) {
    let texts: Vec<Vec<u8>> = startup[8..].split(|byte| *byte == 0).map(<[u8]>::to_vec).collect();
    let mut kept = startup[4..8].to_vec();
    for parameter in texts.chunks(2).filter(|it| it.len() == 2 && !it[0].is_empty()) {
        if parameter[0] != b"options" {
            kept.extend(parameter.iter().flat_map(|text| text.iter().copied().chain([0])));
        }
    }
    kept.push(0);
    let length = u32::try_from(kept.len() + 4).expect("a short message");
    *startup = [length.to_be_bytes().to_vec(), kept].concat();
}

/// The rest of a message whose length is at this offset.
async fn read_rest(
    source: &mut (impl AsyncRead + Unpin),
    bytes: &mut Vec<u8>,
    length_at: usize,
) -> io::Result<()> {
    let length = bytes[length_at..length_at + 4].try_into().map(u32::from_be_bytes);
    // The length includes itself, but not the type.
    let total = length_at + length.expect("four bytes") as usize;
    let had = bytes.len();
    bytes.resize(total.max(had), 0);
    source.read_exact(&mut bytes[had..]).await?;
    Ok(())
}

fn server_address(database_url: &str) -> String {
    let (_, rest) = database_url.split_once("://").expect("a URL");
    let rest = rest.rsplit_once('@').map_or(rest, |(_, rest)| rest);
    rest.split(['/', '?']).next().expect("an address").to_owned()
}
