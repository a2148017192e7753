//! Which browser has which credential.
//!
//! A session is a random id of 256 bits, which only the browser has, and a bearer token, which only
//! the server has. The server keeps the hash of the id. Sessions are in memory, so they end with the
//! process.

use std::{collections::HashMap, time::Duration};

use sha2::{Digest, Sha256};
use tokio::{sync::Mutex, time::Instant};
use tonic::metadata::{Ascii, MetadataValue};

/// The limits of sessions.
#[derive(Clone, Copy, Debug)]
pub struct SessionLimits {
    /// How long a session lasts at most.
    pub time_max: Duration,
    /// How long a session lasts without a request of a person.
    pub idle_max: Duration,
    /// Sessions of one token. One more ends the one that was idle the longest.
    pub of_token_max: usize,
    /// Sessions of all tokens. One more ends the one that was idle the longest.
    pub count_max: usize,
}

impl SessionLimits {
    /// A working day, half an hour, and a few browsers for each person.
    pub const DEFAULT: Self = Self {
        time_max: Duration::from_secs(8 * 60 * 60),
        idle_max: Duration::from_secs(30 * 60),
        of_token_max: 16,
        count_max: 4096,
    };
}

/// The sessions.
pub struct Sessions {
    limits: SessionLimits,
    by_id: Mutex<HashMap<IdHash, Session>>,
}

type IdHash = [u8; 32];

struct Session {
    authorization: MetadataValue<Ascii>,
    started_at: Instant,
    used_at: Instant,
}

/// Who asks for a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asker {
    /// A person, which keeps the session.
    Person,
    /// The script of an open page, which does not.
    Script,
}

impl Sessions {
    pub fn new(limits: SessionLimits) -> Self {
        Self { limits, by_id: Mutex::default() }
    }

    /// Begins a session with this credential, and returns its id.
    ///
    /// # Errors
    /// The system has no random numbers.
    pub async fn begin(
        &self,
        authorization: MetadataValue<Ascii>,
        now: Instant,
    ) -> Result<String, getrandom::Error> {
        let mut id = [0; 32];
        getrandom::fill(&mut id)?;
        let id: String = id.iter().map(|byte| format!("{byte:02x}")).collect();
        let mut sessions = self.by_id.lock().await;
        sessions.retain(|_, session| session.is_live(now, &self.limits));
        let same = |session: &Session| session.authorization == authorization;
        if sessions.values().filter(|session| same(session)).count() >= self.limits.of_token_max {
            end_the_most_idle(&mut sessions, same);
        }
        if sessions.len() >= self.limits.count_max {
            end_the_most_idle(&mut sessions, |_| true);
        }
        sessions.insert(hash(&id), Session { authorization, started_at: now, used_at: now });
        Ok(id)
    }

    /// The credential of the session with this id. None if the session has ended.
    pub async fn credential(
        &self,
        id: &str,
        asker: Asker,
        now: Instant,
    ) -> Option<MetadataValue<Ascii>> {
        let mut sessions = self.by_id.lock().await;
        let session = sessions.get_mut(&hash(id))?;
        if !session.is_live(now, &self.limits) {
            sessions.remove(&hash(id));
            return None;
        }
        if asker == Asker::Person {
            session.used_at = now;
        }
        Some(session.authorization.clone())
    }

    /// Ends the session with this id, if there is one.
    pub async fn end(&self, id: &str) {
        self.by_id.lock().await.remove(&hash(id));
    }
}

impl Session {
    fn is_live(&self, now: Instant, limits: &SessionLimits) -> bool {
        now.duration_since(self.started_at) < limits.time_max
            && now.duration_since(self.used_at) < limits.idle_max
    }
}

fn end_the_most_idle(
    sessions: &mut HashMap<IdHash, Session>,
    is_candidate: impl Fn(&Session) -> bool,
) {
    let candidates = sessions.iter().filter(|(_, session)| is_candidate(session));
    let most_idle = candidates.min_by_key(|(_, session)| session.used_at).map(|(id, _)| *id);
    if let Some(id) = most_idle {
        sessions.remove(&id);
    }
}

/// Sessions are found by the hash, so that the time of a look-up says nothing of the ids.
fn hash(id: &str) -> IdHash {
    Sha256::digest(id).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: SessionLimits = SessionLimits {
        time_max: Duration::from_secs(100),
        idle_max: Duration::from_secs(10),
        of_token_max: 2,
        count_max: 3,
    };

    /// Sessions, and the time of the test in seconds.
    struct Clock {
        sessions: Sessions,
        start: Instant,
    }

    impl Clock {
        fn new() -> Self {
            Self { sessions: Sessions::new(LIMITS), start: Instant::now() }
        }

        fn at(&self, seconds: u64) -> Instant {
            self.start + Duration::from_secs(seconds)
        }

        async fn begin(&self, name: &str, seconds: u64) -> String {
            let token = format!("Bearer {name}").parse().unwrap();
            self.sessions.begin(token, self.at(seconds)).await.unwrap()
        }

        async fn is_live(&self, id: &str, asker: Asker, seconds: u64) -> bool {
            self.sessions.credential(id, asker, self.at(seconds)).await.is_some()
        }
    }

    #[tokio::test]
    async fn a_session_ends_when_it_is_idle_or_old() {
        let clock = Clock::new();
        let id = clock.begin("a", 0).await;
        let token = clock.sessions.credential(&id, Asker::Person, clock.at(0)).await;
        assert_eq!(token.unwrap(), "Bearer a");
        for seconds in (9..100).step_by(9) {
            assert!(clock.is_live(&id, Asker::Person, seconds).await, "{seconds}");
        }
        assert!(!clock.is_live(&id, Asker::Person, 100).await, "it is old");

        let id = clock.begin("a", 100).await;
        assert!(clock.is_live(&id, Asker::Script, 109).await);
        assert!(!clock.is_live(&id, Asker::Script, 110).await, "no person has used it");
        assert!(clock.sessions.by_id.lock().await.is_empty());
    }

    #[tokio::test]
    async fn one_session_too_many_ends_the_most_idle_one() {
        let clock = Clock::new();
        let mut ids = Vec::new();
        for (name, seconds) in [("a", 0), ("b", 1), ("a", 2), ("a", 3)] {
            ids.push(clock.begin(name, seconds).await);
        }
        let mut live = Vec::new();
        for id in &ids {
            live.push(clock.is_live(id, Asker::Script, 4).await);
        }
        assert_eq!(live, [false, true, true, true], "the third of a token ends its first");
        clock.begin("c", 4).await;
        assert!(!clock.is_live(&ids[1], Asker::Script, 4).await, "the fourth of all");
        clock.sessions.end(&ids[3]).await;
        assert!(!clock.is_live(&ids[3], Asker::Script, 4).await);
        assert!(!clock.is_live("", Asker::Person, 4).await);
    }
}
