//! Mail over two to four supernodes: what is posted at one is at all, waits, is pushed, and survives the death of any of them.

mod common;

use ahoy_identity::{SigningKey, pass};
use ahoy_protocol::certificate::NodeRole;
use ahoy_protocol::directory::{ALPN, Push, Request, Response};
use ahoy_protocol::ids::{DeviceKey, EnvelopeId, MailboxSecret, PassId, RatchetKey, VaultKey};
use ahoy_protocol::mail::{
    Envelope, Given, MailForward, MailRequest, MailResponse, MailboxTerms, Permit, Posted, Posting, Prekey, PrekeyKind, STRANGER_BYTES_MAX,
};
use ahoy_protocol::time::DAY;
use ahoy_protocol::vault::VaultItem;
use ahoy_protocol::{Blob, List, NodeKey};
use ahoy_supernode::Supernode;
use ahoy_transport::Connection;
use common::{Device, Network, PATIENCE, ask, endpoint, eventually, is_refused, now, pushed};

/// Of all mailboxes in these tests.
const SECRET: MailboxSecret = MailboxSecret([5; 32]);

fn keys(supernodes: &[Supernode]) -> Vec<NodeKey> {
    supernodes.iter().map(Supernode::key).collect()
}

fn contact() -> Permit {
    Permit::Pass(pass(&SECRET, PassId([1; 16])))
}

async fn ask_about_mail(connection: &Connection, request: MailRequest) -> MailResponse {
    match ask(connection, &Request::Mail(Box::new(request))).await {
        Response::Mail(response) => *response,
        other => panic!("no answer about mail: {other:?}"),
    }
}

fn terms(device: &Device, version: u64, mailboxes: &[NodeKey]) -> MailboxTerms {
    MailboxTerms {
        user: device.user_key.user_key(),
        device: device.device_key(),
        version,
        secret: SECRET,
        revoked: List::default(),
        strangers: true,
        mailboxes: List::first_of(mailboxes.iter().copied()),
    }
}

async fn open_as(connection: &Connection, device: &Device, terms: MailboxTerms) -> MailResponse {
    ask_about_mail(connection, MailRequest::Open(device.key.sign(&terms).expect("fits"))).await
}

/// Opens a mailbox, and waits until it is known to all its supernodes.
async fn open(connection: &Connection, device: &Device, mailboxes: &[Supernode]) {
    let before: Vec<_> = mailboxes.iter().map(|mailbox| mailbox.mail().0).collect();
    let opened = open_as(connection, device, terms(device, 1, &keys(mailboxes))).await;
    assert!(matches!(opened, MailResponse::Open { newer: None, .. }), "{opened:?}");
    eventually("the mailbox is open everywhere", async || {
        mailboxes.iter().zip(&before).all(|(mailbox, before)| mailbox.mail().0 > *before)
    })
    .await;
}

fn envelope(to: DeviceKey, n: u8, len: usize) -> Envelope {
    Envelope { to, id: EnvelopeId([n; 16]), not_after: now().plus(20 * DAY), sealed: Blob::new(vec![n; len]).expect("fits") }
}

fn posting(permit: Permit, mailboxes: &[NodeKey], envelope: Envelope) -> Posting {
    Posting { permit, mailboxes: List::first_of(mailboxes.iter().copied()), envelope }
}

async fn post(connection: &Connection, keep: bool, postings: Vec<Posting>) -> Vec<Posted> {
    match ask_about_mail(connection, MailRequest::Post { keep, postings: List::first_of(postings) }).await {
        MailResponse::Posted(posted) => posted.into_vec(),
        other => panic!("not posted: {other:?}"),
    }
}

async fn post_one(connection: &Connection, mailboxes: &[NodeKey], envelope: Envelope) -> Posted {
    post(connection, true, vec![posting(contact(), mailboxes, envelope)]).await[0]
}

async fn fetched(connection: &Connection) -> Vec<u8> {
    match ask_about_mail(connection, MailRequest::Fetch { after: 0 }).await {
        MailResponse::Mail(page) => page.envelopes.iter().map(|envelope| envelope.id.0[0]).collect(),
        other => panic!("nothing fetched: {other:?}"),
    }
}

/// Whether a writer need not come back: two mailboxes keep it, or its device has it.
fn is_kept(posted: Posted) -> bool {
    matches!(posted, Posted::Kept { by: 2.., .. } | Posted::Kept { pushed: true, .. })
}

#[tokio::test]
async fn what_is_posted_at_one_supernode_waits_at_all_mailboxes_until_it_is_deleted_there() {
    let network = Network::new().await;
    let supernodes = network.supernodes(3).await;
    let (alice, bob) = (network.user("alice").await, network.user("bob").await);
    let mailboxes = keys(&supernodes);
    let there = bob.at(&supernodes[0]).await;
    open(&there, &bob, &supernodes).await;
    drop(there);
    let hers = alice.at(&supernodes[1]).await;
    let posted = post_one(&hers, &mailboxes, envelope(bob.device_key(), 1, 256)).await;
    assert!(is_kept(posted), "{posted:?}");
    eventually("all have it", async || supernodes.iter().all(|supernode| supernode.mail().1 == 1)).await;
    for supernode in &supernodes {
        let there = bob.at(supernode).await;
        assert_eq!(fetched(&there).await, [1]);
        let delete = MailRequest::Delete(List::first_of([EnvelopeId([1; 16])]));
        assert_eq!(ask_about_mail(&there, delete).await, MailResponse::Done);
        assert!(fetched(&there).await.is_empty());
    }
    let again = post_one(&hers, &mailboxes, envelope(bob.device_key(), 1, 256)).await;
    assert!(matches!(again, Posted::Kept { pushed: true, .. }), "he has it: {again:?}");
    assert!(supernodes.iter().all(|supernode| supernode.mail().1 == 0));
}

#[tokio::test]
async fn a_device_that_is_here_has_it_at_once_and_what_is_not_to_be_kept_is_not() {
    let network = Network::new().await;
    let supernodes = network.supernodes(2).await;
    let (alice, bob) = (network.user("alice").await, network.user("bob").await);
    let mailboxes = keys(&supernodes);
    let (hers, his) = (alice.at(&supernodes[0]).await, bob.at(&supernodes[1]).await);
    open(&his, &bob, &supernodes).await;
    let wrote = envelope(bob.device_key(), 1, 1024);
    let (posted, push) = tokio::join!(post_one(&hers, &mailboxes, wrote.clone()), pushed(&his));
    assert_eq!(push, Push::Mail(Box::new(wrote)));
    assert!(matches!(posted, Posted::Kept { pushed: true, .. }), "{posted:?}");
    assert_eq!(fetched(&his).await, [1], "it waits until it is deleted");
    let typing = vec![posting(contact(), &mailboxes, envelope(bob.device_key(), 2, 256))];
    let (posted, push) = tokio::join!(post(&hers, false, typing.clone()), pushed(&his));
    assert_eq!(posted, [Posted::Kept { by: 0, pushed: true }]);
    assert!(matches!(push, Push::Mail(envelope) if envelope.id == EnvelopeId([2; 16])));
    assert_eq!(fetched(&his).await, [1]);
    drop(his);
    eventually("he is gone", async || post(&hers, false, typing.clone()).await == [Posted::Kept { by: 0, pushed: false }]).await;
}

#[tokio::test]
async fn mail_outlives_the_supernodes_process_and_a_mailbox_that_was_away_is_told() {
    let network = Network::new().await;
    let mut supernodes = network.supernodes(3).await;
    let (alice, bob) = (network.user("alice").await, network.user("bob").await);
    let mailboxes = keys(&supernodes);
    let there = bob.at(&supernodes[0]).await;
    open(&there, &bob, &supernodes).await;
    let hers = alice.at(&supernodes[0]).await;
    assert!(is_kept(post_one(&hers, &mailboxes, envelope(bob.device_key(), 1, 256)).await));
    eventually("the third has it", async || supernodes[2].mail().1 == 1).await;
    // Without a word, as a process is killed.
    drop(supernodes.pop());
    let posted = post_one(&hers, &mailboxes, envelope(bob.device_key(), 2, 256)).await;
    assert!(matches!(posted, Posted::Kept { .. }), "one of three is dead: {posted:?}");
    let mut args = network.args("supernode-2").await;
    args.serve.token = None;
    let again = Supernode::start(&args).await.expect("starts again");
    assert!(again.mail().1 >= 1, "what it kept is there");
    eventually("it has what it missed", async || again.mail().1 == 2).await;
    assert_eq!(fetched(&bob.at(&again).await).await, [1, 2]);
}

#[tokio::test]
async fn a_mailbox_that_lost_its_disk_is_told_everything_anew() {
    let network = Network::new().await;
    let mut supernodes = network.supernodes(2).await;
    let (alice, bob) = (network.user("alice").await, network.user("bob").await);
    let mailboxes = keys(&supernodes);
    let there = bob.at(&supernodes[0]).await;
    open(&there, &bob, &supernodes).await;
    let put = MailRequest::PutVault(List::first_of([register(1)]));
    assert_eq!(ask_about_mail(&there, put).await, MailResponse::Done);
    let hers = alice.at(&supernodes[0]).await;
    assert!(is_kept(post_one(&hers, &mailboxes, envelope(bob.device_key(), 1, 256)).await));
    supernodes.pop().expect("two").stop().await;
    let mail = network.data("supernode-1").join("mail.sqlite");
    std::fs::remove_file(&mail).expect("its mail is there");
    let mut args = network.args("supernode-1").await;
    args.serve.token = None;
    let again = Supernode::start(&args).await.expect("starts again");
    assert_eq!(again.mail(), (0, 0));
    eventually("it can be posted to", async || {
        let posted = post_one(&hers, &mailboxes, envelope(bob.device_key(), 2, 256)).await;
        assert!(matches!(posted, Posted::Kept { .. }), "{posted:?}");
        again.mail() == (1, 2)
    })
    .await;
    let elsewhere = bob.at(&again).await;
    let mut all = fetched(&elsewhere).await;
    // In the order in which they came to this mailbox.
    all.sort_unstable();
    assert_eq!(all, [1, 2]);
    eventually("it has the vault", async || vault(&elsewhere).await == [register(1)]).await;
}

#[tokio::test]
async fn where_a_user_chooses_other_mailboxes_they_take_over_and_the_old_one_forgets() {
    let network = Network::new().await;
    let supernodes = network.supernodes(4).await;
    let (alice, bob) = (network.user("alice").await, network.user("bob").await);
    let there = bob.at(&supernodes[0]).await;
    open(&there, &bob, &supernodes[..3]).await;
    let put = MailRequest::PutVault(List::first_of([register(1)]));
    assert_eq!(ask_about_mail(&there, put).await, MailResponse::Done);
    let hers = alice.at(&supernodes[0]).await;
    assert!(is_kept(post_one(&hers, &keys(&supernodes[..3]), envelope(bob.device_key(), 1, 256)).await));
    let elsewhere = bob.at(&supernodes[3]).await;
    assert_eq!(ask_about_mail(&elsewhere, MailRequest::Fetch { after: 0 }).await, MailResponse::NotOpen);
    assert_eq!(open_as(&elsewhere, &bob, terms(&bob, 1, &keys(&supernodes[..3]))).await, MailResponse::NotOpen, "it is none of them");
    open_as(&there, &bob, terms(&bob, 2, &keys(&supernodes[1..]))).await;
    eventually("the old one has forgotten", async || supernodes[0].mail() == (0, 0)).await;
    // Two of the three are enough for that; this one may be the third.
    eventually("it has the mail", async || is_open(&elsewhere).await && fetched(&elsewhere).await == [1]).await;
    eventually("it has the vault", async || vault(&elsewhere).await == [register(1)]).await;
}

async fn is_open(connection: &Connection) -> bool {
    ask_about_mail(connection, MailRequest::Fetch { after: 0 }).await != MailResponse::NotOpen
}

async fn vault(connection: &Connection) -> Vec<VaultItem> {
    match ask_about_mail(connection, MailRequest::GetVault { after: 0 }).await {
        MailResponse::Vault(page) => page.items.into_vec(),
        other => panic!("no vault: {other:?}"),
    }
}

fn register(n: u8) -> VaultItem {
    VaultItem { key: VaultKey([n; 16]), version: 1, sealed: Blob::new(vec![n; 64]).expect("fits") }
}

#[tokio::test]
async fn what_one_device_puts_into_the_vault_another_is_told_of_and_reads_elsewhere() {
    let network = Network::new().await;
    let supernodes = network.supernodes(2).await;
    let laptop = network.user("bob").await;
    let telephone = network.further_device(&laptop).await;
    let (here, there) = (laptop.at(&supernodes[0]).await, telephone.at(&supernodes[1]).await);
    open(&here, &laptop, &supernodes).await;
    open(&there, &telephone, &supernodes).await;
    let put = MailRequest::PutVault(List::first_of([register(1)]));
    let (answer, push) = tokio::join!(ask_about_mail(&here, put), pushed(&there));
    assert_eq!((answer, push), (MailResponse::Done, Push::VaultChanged));
    assert_eq!(vault(&there).await, [register(1)]);
}

#[tokio::test]
async fn each_one_time_key_is_given_once_whichever_mailbox_has_it() {
    let network = Network::new().await;
    let supernodes = network.supernodes(3).await;
    let (alice, bob) = (network.user("alice").await, network.user("bob").await);
    let mailboxes = keys(&supernodes[..2]);
    let prekey = |n, kind| {
        let key = RatchetKey([n; 32]);
        bob.key.sign(&Prekey { device: bob.device_key(), identity: RatchetKey([0; 32]), key, kind, issued: now() }).expect("fits")
    };
    for (n, supernode) in (1..).zip(&supernodes[..2]) {
        let there = bob.at(supernode).await;
        open_as(&there, &bob, terms(&bob, 1, &mailboxes)).await;
        let keys = List::first_of([prekey(100, PrekeyKind::Fallback), prekey(n, PrekeyKind::OneTime)]);
        assert_eq!(ask_about_mail(&there, MailRequest::OfferKeys { renew: false, keys }).await, MailResponse::Done);
    }
    let hers = alice.at(&supernodes[2]).await;
    let take = async |permit| {
        let take = MailRequest::TakeKey { device: bob.device_key(), permit, mailboxes: List::first_of(mailboxes.iter().copied()) };
        match ask_about_mail(&hers, take).await {
            MailResponse::Key(key) => key.map(|key| key.claims().expect("readable").key.0[0]),
            other => panic!("no key: {other:?}"),
        }
    };
    assert_eq!(take(Permit::Stranger).await, None);
    assert_eq!([take(contact()).await, take(contact()).await, take(contact()).await], [Some(1), Some(2), Some(100)]);
}

#[tokio::test]
async fn who_has_no_right_to_it_neither_writes_nor_reads_nor_speaks_for_a_supernode() {
    let network = Network::new().await;
    let supernodes = network.supernodes(1).await;
    let (bob, eve) = (network.user("bob").await, network.user("eve").await);
    let mailboxes = keys(&supernodes);
    let there = bob.at(&supernodes[0]).await;
    open(&there, &bob, &supernodes).await;
    let hers = eve.at(&supernodes[0]).await;
    assert_eq!(ask_about_mail(&hers, MailRequest::Fetch { after: 0 }).await, MailResponse::NotOpen);
    let forged = Permit::Pass(pass(&MailboxSecret([6; 32]), PassId([1; 16])));
    let long = STRANGER_BYTES_MAX + 1;
    let attempts = [(forged, 256), (Permit::Own, 256), (Permit::Stranger, long), (Permit::Stranger, 256), (Permit::Stranger, 256)];
    let postings = (1..).zip(attempts).map(|(n, (permit, len))| posting(permit, &mailboxes, envelope(bob.device_key(), n, len)));
    let posted = post(&hers, true, postings.collect()).await;
    assert_eq!(posted[..3], [Posted::NotPermitted; 3]);
    assert!(matches!(posted[3], Posted::Kept { by: 1, .. }), "one short request");
    assert_eq!(posted[4], Posted::Full);
    let others = ask(&hers, &Request::Mail(Box::new(MailRequest::Open(bob.key.sign(&terms(&bob, 2, &mailboxes)).expect("fits"))))).await;
    assert!(is_refused(&others), "the terms of another device: {others:?}");
    let forward = MailForward::Post { keep: true, from: bob.user_key.user_key(), postings: List::default() };
    assert!(is_refused(&ask(&hers, &Request::ForwardMail(Box::new(forward))).await));
}

#[tokio::test]
async fn an_evil_mailbox_neither_changes_terms_nor_fills_nor_empties_another() {
    let network = Network::new().await;
    let evil = network.enrolled(NodeRole::Supernode).await;
    let supernodes = network.supernodes(1).await;
    let (alice, bob) = (network.user("alice").await, network.user("bob").await);
    let there = bob.at(&supernodes[0]).await;
    // With two supernodes in the roster, the evil one is the other mailbox of everybody.
    open(&there, &bob, &supernodes).await;
    let hers = alice.at(&supernodes[0]).await;
    post_one(&hers, &keys(&supernodes), envelope(bob.device_key(), 1, 256)).await;
    let playing = endpoint(&evil);
    let connection = playing.connect(supernodes[0].addresses()[0], &supernodes[0].key(), ALPN).await.expect("connects");
    let forward = async |forward| ask(&connection, &Request::ForwardMail(Box::new(forward))).await;
    let have = |terms: MailboxTerms, signer: &Device| MailForward::Have {
        device: bob.device_key(),
        terms: signer.key.sign(&terms).expect("fits"),
        certificate: signer.device.clone(),
        kept: List::first_of([EnvelopeId([1; 16]), EnvelopeId([2; 16])]),
    };
    let mut no_more_passes = terms(&bob, 9, &[]);
    no_more_passes.secret = MailboxSecret([6; 32]);
    assert!(is_refused(&forward(have(no_more_passes, &alice)).await), "terms that somebody else signed");
    assert!(is_refused(&forward(have(terms(&alice, 9, &[]), &alice)).await), "terms of another device");
    let wanted = List::first_of([EnvelopeId([2; 16])]);
    let genuine = forward(have(terms(&bob, 1, &keys(&supernodes)), &bob)).await;
    assert_eq!(genuine, Response::Mail(Box::new(MailResponse::Wanted { envelopes: wanted, opened: false })));
    let forged = Permit::Pass(pass(&MailboxSecret([6; 32]), PassId([1; 16])));
    let given = (1..).zip([forged, Permit::Own]).map(|(n, permit)| Given {
        permit,
        from: alice.user_key.user_key(),
        envelope: envelope(bob.device_key(), 10 + n, 256),
    });
    let answer = forward(MailForward::Give(List::first_of(given))).await;
    assert_eq!(answer, Response::Mail(Box::new(MailResponse::Posted(List::first_of([Posted::NotPermitted; 2])))));
    let ahead = VaultItem { version: u64::MAX, ..register(1) };
    let items = List::first_of([ahead]);
    forward(MailForward::Vault { user: bob.user_key.user_key(), items }).await;
    assert!(vault(&there).await.is_empty());
    assert_eq!(fetched(&there).await, [1], "what alice wrote is there, and nothing else");
    assert!(matches!(post_one(&hers, &keys(&supernodes), envelope(bob.device_key(), 3, 256)).await, Posted::Kept { by: 1, .. }));
}

#[tokio::test]
async fn only_those_who_have_registered_send_long_requests() {
    let network = Network::new().await;
    let supernodes = network.supernodes(1).await;
    let bob = network.user("bob").await;
    let postings = List::first_of([posting(contact(), &keys(&supernodes), envelope(bob.device_key(), 1, 20 * 1024))]);
    let long = Request::Mail(Box::new(MailRequest::Post { keep: true, postings }));
    let stranger = endpoint(&SigningKey::generate());
    let theirs = stranger.connect(supernodes[0].addresses()[0], &supernodes[0].key(), ALPN).await.expect("connects");
    assert!(theirs.request::<_, Response>(&long, PATIENCE).await.is_ok_and(|answer| is_refused(&answer)));
    let his = bob.connect(supernodes[0].addresses()[0], &supernodes[0].key()).await;
    let registration = bob.registration();
    // Together with the registration, as a client does.
    let (answer, registered) = tokio::join!(biased; ask(&his, &long), ask(&his, &registration));
    assert_eq!(registered, Response::Done);
    assert_eq!(answer, Response::Mail(Box::new(MailResponse::Posted(List::first_of([Posted::NoMailbox])))));
}
