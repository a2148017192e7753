//! The names under which requests have been recorded since the server started.

use std::collections::HashMap;

use crate::{auth::policy::Policy, domain::ids::Identity};

/// What the policies since the start have said. The last policy is not enough: an identity may be
/// removed, and come back under another name.
#[derive(Debug, Default)]
pub(super) struct RecordedNames {
    /// The name of each identity that has had an entry.
    names: HashMap<Identity, Identity>,
    /// Whether there were groups. Their members are in no file, and are recorded under their own names.
    had_groups: bool,
}

impl RecordedNames {
    /// Notes the names of a policy that comes into force.
    pub(super) fn note(&mut self, policy: &Policy) {
        let identities = policy.identities.keys();
        self.names.extend(identities.map(|it| (it.clone(), policy.recorded_as(it))));
        self.had_groups |= !policy.groups.is_empty();
    }

    /// Checks that each caller of the next policy remains recorded under the same name. Under another
    /// one, a repeat of an earlier request would not be found, and be applied a second time.
    ///
    /// # Errors
    /// An identity for which that is not so, in one line.
    pub(super) fn check_kept(&self, next: &Policy) -> Result<(), String> {
        let may_be_member =
            |identity: &&Identity| !next.groups.is_empty() && identity.is_known_by_jwt();
        let members = self.names.keys().filter(may_be_member);
        for identity in next.identities.keys().chain(members) {
            let after = next.recorded_as(identity);
            if let Some(before) = self.name_of(identity).filter(|before| **before != after) {
                return Err(format!(
                    "identity {identity:?} would be recorded as {after:?}, and this server has \
                     recorded it as {before:?}: a repeat of an earlier request, as after a timeout, \
                     would be applied a second time. While a server runs, `recorded_as` does not \
                     change, not even for an identity that was removed meanwhile"
                ));
            }
        }
        Ok(())
    }

    /// The name under which requests of this identity may have been recorded. None: there are none.
    fn name_of<'a>(&'a self, identity: &'a Identity) -> Option<&'a Identity> {
        let may_have_been_member = self.had_groups && identity.is_known_by_jwt();
        self.names.get(identity).or(may_have_been_member.then_some(identity))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::auth::policy::{AllowedMethods, Permission};

    /// A policy of these identities, each with the name under which it is recorded.
    fn policy(names: &[(&str, Option<&str>)], groups: &[&str]) -> Policy {
        let permission = |recorded_as: Option<&str>| Permission {
            methods: AllowedMethods::default(),
            grant: Arc::default(),
            recorded_as: recorded_as.map(Identity::from_stored),
        };
        let identities = names
            .iter()
            .map(|(name, recorded_as)| (Identity::from_stored(name), permission(*recorded_as)));
        let groups = groups.iter().map(|name| ((*name).to_owned(), permission(None)));
        Policy { identities: identities.collect(), groups: groups.collect() }
    }

    /// The names after these policies, which were in force one after another.
    fn after(policies: &[Policy]) -> RecordedNames {
        let mut names = RecordedNames::default();
        for policy in policies {
            names.note(policy);
        }
        names
    }

    #[test]
    fn an_identity_that_remains_keeps_the_name_under_which_it_is_recorded() {
        let names = [("new", Some("old")), ("other", None), ("jwt:new", Some("old-2"))];
        let before = after(&[policy(&names, &[])]);
        for (names, groups, changed) in [
            (&[("new", Some("old")), ("jwt:new", Some("old-2"))][..], &[][..], None),
            (&[("new", Some("old")), ("third", Some("other"))], &["any"], Some("jwt:new")),
            (&[("old", None), ("jwt:new", Some("old-2"))], &["any"], None),
            (&[], &[], None),
            (&[("new", None)], &[], Some("new")),
            (&[("new", Some(""))], &[], Some("new")),
            (&[("other", Some("old"))], &[], Some("other")),
        ] {
            let result = before.check_kept(&policy(names, groups));
            let expected = changed.map(|name| format!("identity {name:?} would be recorded as "));
            assert_eq!(result.is_err(), expected.is_some(), "{names:?} {result:?}");
            assert!(expected.is_none_or(|it| result.unwrap_err().starts_with(&it)), "{names:?}");
        }
    }

    #[test]
    fn an_identity_that_comes_back_keeps_the_name_under_which_it_was_recorded() {
        let renamed = policy(&[("billing", Some("")), ("jwt:new", Some("old"))], &[]);
        let names = after(&[renamed, policy(&[("shop", None)], &[])]);
        assert_eq!(names.check_kept(&policy(&[("billing", Some(""))], &[])), Ok(()));
        for (identities, groups) in [
            (&[("billing", None)][..], &[][..]),
            (&[("billing", Some("shop-2"))], &[]),
            // The identity is none of the policy, and may be a member of the group.
            (&[], &["any"]),
        ] {
            let result = names.check_kept(&policy(identities, groups));
            assert!(result.is_err(), "{identities:?} {groups:?}");
        }
    }

    #[test]
    fn a_member_of_a_group_that_gets_an_entry_keeps_its_own_name() {
        let without_groups = policy(&[("shop", None)], &[]);
        let names = after(&[policy(&[], &["any"]), without_groups.clone()]);
        for (recorded_as, is_kept) in
            [(None, true), (Some("jwt:alice"), true), (Some("jwt:alice-old"), false)]
        {
            let next = policy(&[("jwt:alice", recorded_as)], &[]);
            assert_eq!(names.check_kept(&next).is_ok(), is_kept, "{recorded_as:?}");
            let next = policy(&[("alice", recorded_as)], &[]);
            assert_eq!(names.check_kept(&next), Ok(()), "a token names no groups");
            let next = policy(&[("jwt:alice", recorded_as)], &["any"]);
            assert_eq!(
                after(std::slice::from_ref(&without_groups)).check_kept(&next),
                Ok(()),
                "no groups yet"
            );
        }
    }
}
