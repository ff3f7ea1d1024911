//! Which supernodes keep a user's mail.

use ahoy_identity::sha256;
use ahoy_protocol::ids::{NodeKey, UserKey};
use ahoy_protocol::record::MAILBOXES_MAX;

/// The supernodes that keep the mail of `user`: those of `listed` that are among `nodes`, and, up to [`MAILBOXES_MAX`], further ones of
/// `nodes` in an order that is the user's own.
///
/// Everybody who has the same roster finds the same ones, so that mail goes on while a listed supernode is out of the roster; and where one
/// goes, the others stay.
#[must_use]
pub fn mailboxes_for(user: &UserKey, listed: &[NodeKey], nodes: impl IntoIterator<Item = NodeKey>) -> Vec<NodeKey> {
    let mut ranked: Vec<_> = nodes.into_iter().map(|node| (sha256(&[b"ahoy/mailbox/1", user.as_bytes(), node.as_bytes()]), node)).collect();
    ranked.sort_unstable();
    ranked.dedup();
    let mut mailboxes: Vec<NodeKey> = Vec::new();
    let present = listed.iter().filter(|node| ranked.iter().any(|(_, ranked)| ranked == *node));
    for node in present.chain(ranked.iter().map(|(_, node)| node)) {
        if mailboxes.len() < MAILBOXES_MAX && !mailboxes.contains(node) {
            mailboxes.push(*node);
        }
    }
    mailboxes
}

#[cfg(test)]
mod tests {
    use super::*;

    const USER: UserKey = UserKey([7; 32]);

    fn nodes(count: u8) -> Vec<NodeKey> {
        (0..count).map(|n| NodeKey([n; 32])).collect()
    }

    #[test]
    fn listed_mailboxes_come_first_and_in_their_order() {
        let listed = [NodeKey([9; 32]), NodeKey([4; 32]), NodeKey([1; 32])];
        assert_eq!(mailboxes_for(&USER, &listed, nodes(20)), listed);
    }

    #[test]
    fn who_lists_none_has_three_that_do_not_depend_on_the_order_of_the_roster() {
        let chosen = mailboxes_for(&USER, &[], nodes(20));
        assert_eq!(chosen.len(), MAILBOXES_MAX);
        assert_eq!(chosen, mailboxes_for(&USER, &[], nodes(20).into_iter().rev()));
        assert_ne!(chosen, mailboxes_for(&UserKey([8; 32]), &[], nodes(20)));
    }

    #[test]
    fn a_listed_mailbox_that_left_the_roster_is_replaced_and_the_others_stay() {
        let listed = [NodeKey([9; 32]), NodeKey([99; 32]), NodeKey([1; 32])];
        let chosen = mailboxes_for(&USER, &listed, nodes(20));
        assert_eq!((chosen[0], chosen[1], chosen.len()), (listed[0], listed[2], MAILBOXES_MAX));
        let without_another = mailboxes_for(&USER, &listed, nodes(20).into_iter().filter(|node| *node != listed[0]));
        assert_eq!(without_another[..2], chosen[1..]);
    }

    #[test]
    fn a_mailbox_listed_twice_counts_once_and_few_supernodes_are_all_there_are() {
        let listed = [NodeKey([1; 32]), NodeKey([1; 32])];
        assert_eq!(mailboxes_for(&USER, &listed, nodes(2)), [NodeKey([1; 32]), NodeKey([0; 32])]);
        assert!(mailboxes_for(&USER, &listed, []).is_empty());
    }
}
