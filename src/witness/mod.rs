//! The witness of the ledger: signed heads.
//!
//! The hash of an entry has no secret in it: a person who can write the database can compute a whole
//! chain again. A signature with a key that this person does not have shows that. `docs/entry-hash.md`
//! has the signed texts, so that anyone can check a head without this program.

mod heads_file;
mod key;

pub use heads_file::{HeadsReader, HeadsWriter};
pub use key::{PublicKey, SigningKey};
