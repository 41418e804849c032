//! Both machines of a login against each other, and each against a peer that lies.

use super::*;
use crate::protocol::login::{Login, LoginError, LoginRequest, LoginStep, RsaPolicy, Server};
use crate::protocol::{packet, reply};
use proptest::prelude::*;

const NONCE: [u8; NONCE_LEN] = *b"abcdefghijklmnopqrst";
const CAPS: Capabilities = Capabilities(
    512 | 8192 | 32768 | 8 | 1 | (1 << 19) | (1 << 20) | (1 << 21) | (1 << 23) | (1 << 24),
);

const SWITCH_NONCE: [u8; 20] = *b"switchswitchswitch!!";

fn offer(plugin: &[u8], rsa: &Arc<RsaKey>, secure: bool) -> Offer {
    Offer {
        certificate: None,
        version: b"8.4.0".to_vec(),
        connection_id: 7,
        capabilities: CAPS,
        mariadb: MariadbCapabilities(0),
        collation: 45,
        status: Status::AUTOCOMMIT,
        plugin: plugin.to_vec(),
        rsa: Arc::clone(rsa),
        secure,
        switch_nonce: SWITCH_NONCE,
    }
}

fn request(password: &str) -> LoginRequest {
    LoginRequest {
        user: b"app".to_vec(),
        credential: Credential::Password(Password::new(password.as_bytes().to_vec())),
        database: Some(b"shop".to_vec()),
        collation: 33,
        capabilities: CAPS,
        mariadb: MariadbCapabilities(0),
        max_packet: 1 << 24,
        attributes: b"\x03_os\x05Linux".to_vec(),
        rsa: RsaPolicy::AskServer,
        secure: false,
    }
}

fn native(password: &str) -> Account {
    let double_sha1 = (!password.is_empty()).then(|| auth::double_sha1(password.as_bytes()));
    Account::Native { double_sha1 }
}

fn caching(cached: Option<&str>) -> Account {
    let cached = cached.map(|password| Password::new(password.as_bytes().to_vec()));
    Account::CachingSha2 { cached, empty: false }
}

const EMPTY: Account = Account::CachingSha2 { cached: None, empty: true };

fn password(text: &str) -> Credential {
    Credential::Password(Password::new(text.as_bytes().to_vec()))
}

fn packets(mut bytes: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let mut out = Vec::new();
    while let Some((len, seq)) = packet::header(bytes) {
        out.push((seq, bytes[4..4 + len].to_vec()));
        bytes = &bytes[4 + len..];
    }
    assert!(bytes.is_empty());
    out
}

#[derive(Debug, PartialEq)]
enum End {
    In(Credential),
    Denied,
    ClientGaveUp(LoginError),
    ServerRefused(u16),
}

/// Lets both machines talk until one ends, with an owner who knows the account and the right
/// password. Also returns how many packets the client sent.
fn converse(
    (mut greet, first): (Greet, Vec<u8>),
    request: LoginRequest,
    account: &Account,
    right: &str,
) -> (End, usize) {
    let blank = matches!(&request.credential, Credential::Password(given) if given.is_empty());
    let mut login = Login::new(request);
    let mut to_client = first;
    let mut credential = None;
    let mut sent = 0;
    loop {
        let mut to_server = Vec::new();
        for (seq, payload) in packets(&std::mem::take(&mut to_client)) {
            match login.on_packet(seq, &payload) {
                Ok(LoginStep::Send(bytes)) => to_server.extend(bytes),
                Ok(LoginStep::Wait) => {}
                Ok(LoginStep::Done { greeting, capabilities, .. }) => {
                    assert_eq!(greeting.connection_id, 7);
                    assert_eq!(capabilities, CAPS.with(Capabilities::CONNECT_WITH_DB));
                    return (End::In(credential.unwrap()), sent);
                }
                Ok(LoginStep::Refused(_)) => return (End::Denied, sent),
                Ok(other) => panic!("{other:?}"),
                Err(error) => return (End::ClientGaveUp(error), sent),
            }
        }
        for (seq, payload) in packets(&to_server) {
            sent += 1;
            let mut step = match greet.on_packet(seq, &payload) {
                Ok(step) => step,
                Err(error) => return (End::ServerRefused(error.code), sent),
            };
            loop {
                step = match step {
                    Step::NeedAccount => {
                        assert_eq!(greet.hello().user, b"app");
                        assert_eq!(greet.hello().database.as_deref(), Some(&b"shop"[..]));
                        assert_eq!(greet.hello().attributes, b"\x03_os\x05Linux");
                        match greet.account(account.clone()) {
                            Ok(step) => step,
                            Err(error) => return (End::ServerRefused(error.code), sent),
                        }
                    }
                    Step::CheckPassword(given) => greet.checked(given.expose() == right.as_bytes()),
                    Step::Send(bytes) => {
                        to_client.extend(bytes);
                        break;
                    }
                    Step::Done { send, credential: found } => {
                        to_client.extend(send);
                        credential = Some(found);
                        let ok = reply::Ok { status: Status::AUTOCOMMIT, ..reply::Ok::default() };
                        let caps = greet.hello().capabilities;
                        ok.encode(&mut to_client, greet.next_seq(), reply::OK, caps);
                        break;
                    }
                    Step::Denied => {
                        assert_eq!(greet.used_password(), !blank, "using password: YES or NO");
                        let error = SqlError::access_denied("app", "h", true);
                        let caps = greet.hello().capabilities;
                        to_client.extend(error.packet(greet.next_seq(), caps));
                        break;
                    }
                    Step::Tls | Step::Relay | Step::Answer(_) => panic!("nobody asked for it"),
                };
            }
        }
    }
}

#[test]
fn right_passwords_get_in_whatever_the_plugins() {
    let rsa = Arc::new(RsaKey::generate().unwrap());
    let sha1 = Credential::Sha1(auth::stage1(b"secret"));
    let table = [
        // default plugin, account, what the owner learns, packets of the client
        (NATIVE, native("secret"), sha1.clone(), 1),
        (CACHING_SHA2, native("secret"), sha1, 2),
        (CACHING_SHA2, caching(Some("secret")), password("secret"), 1),
        (NATIVE, caching(Some("secret")), password("secret"), 2),
        (CACHING_SHA2, caching(None), password("secret"), 3),
        (NATIVE, caching(None), password("secret"), 4),
        // The password was changed since it was cached.
        (CACHING_SHA2, caching(Some("former")), password("secret"), 3),
    ];
    for (plugin, account, credential, packets) in table {
        let begun = Greet::new(offer(plugin, &rsa, false), NONCE);
        let end = converse(begun, request("secret"), &account, "secret");
        assert_eq!(end, (End::In(credential), packets), "{account:?}");
    }
}

#[test]
fn wrong_passwords_and_unknown_users_are_denied_alike() {
    let rsa = Arc::new(RsaKey::generate().unwrap());
    for plugin in [NATIVE, CACHING_SHA2] {
        let unknown = Account::Unknown { plugin: plugin.to_vec() };
        let known = if plugin == NATIVE { native("secret") } else { caching(None) };
        for given in ["wrong", ""] {
            let ends = [&known, &unknown].map(|account| {
                let begun = Greet::new(offer(plugin, &rsa, false), NONCE);
                converse(begun, request(given), account, "secret")
            });
            assert_eq!(ends[0].0, End::Denied);
            assert_eq!(ends[0], ends[1], "an unknown user is told apart with {plugin:?}");
        }
        // Even when the owner thinks that the password is right.
        let begun = Greet::new(offer(plugin, &rsa, false), NONCE);
        assert_eq!(converse(begun, request("secret"), &unknown, "secret").0, End::Denied);
    }
    let begun = Greet::new(offer(CACHING_SHA2, &rsa, false), NONCE);
    let end = converse(begun, request("wrong"), &caching(Some("secret")), "secret");
    assert_eq!(end.0, End::Denied);
}

#[test]
fn the_empty_password_is_right_only_where_it_is() {
    let rsa = Arc::new(RsaKey::generate().unwrap());
    for plugin in [NATIVE, CACHING_SHA2] {
        for account in [native(""), EMPTY] {
            let begun = || Greet::new(offer(plugin, &rsa, false), NONCE);
            let end = converse(begun(), request(""), &account, "");
            assert_eq!(end.0, End::In(Credential::Empty), "{account:?}");
            let end = converse(begun(), request("something"), &account, "");
            assert_eq!(end.0, End::Denied, "{account:?}");
        }
    }
}

#[test]
fn over_a_secure_transport_the_password_comes_in_clear() {
    let rsa = Arc::new(RsaKey::generate().unwrap());
    let begun = Greet::new(offer(CACHING_SHA2, &rsa, true), NONCE);
    let secure = LoginRequest { secure: true, rsa: RsaPolicy::Never, ..request("secret") };
    let end = converse(begun, secure, &caching(None), "secret");
    assert_eq!(end, (End::In(password("secret")), 2));
    // A client that encrypts all the same is understood too.
    let begun = Greet::new(offer(CACHING_SHA2, &rsa, true), NONCE);
    let end = converse(begun, request("secret"), &caching(None), "secret");
    assert_eq!(end, (End::In(password("secret")), 3));
}

#[test]
fn a_client_gives_its_password_only_as_it_is_told() {
    let rsa = Arc::new(RsaKey::generate().unwrap());
    let begun = || Greet::new(offer(CACHING_SHA2, &rsa, false), NONCE);
    let never = LoginRequest { rsa: RsaPolicy::Never, ..request("secret") };
    let end = converse(begun(), never, &caching(None), "secret");
    assert_eq!(end.0, End::ClientGaveUp(LoginError::Insecure));
    let pinned = RsaPolicy::Pinned(rsa.public_pem().as_bytes().to_vec());
    let end = converse(
        begun(),
        LoginRequest { rsa: pinned, ..request("secret") },
        &caching(None),
        "secret",
    );
    assert_eq!(end, (End::In(password("secret")), 2));
    // Another's key: the server can not read it.
    let other = RsaKey::generate().unwrap().public_pem().as_bytes().to_vec();
    let end = converse(
        begun(),
        LoginRequest { rsa: RsaPolicy::Pinned(other), ..request("secret") },
        &caching(None),
        "secret",
    );
    assert_eq!(end.0, End::Denied);
}

/// MySQL's client 9.7, which has no mysql_native_password, greeted with that.
#[test]
fn a_client_that_waits_for_the_switch_is_not_taken_for_an_empty_password() {
    let rsa = Arc::new(RsaKey::generate().unwrap());
    let (mut greet, _) = Greet::new(offer(NATIVE, &rsa, false), NONCE);
    let mut response = Vec::new();
    HandshakeResponse {
        capabilities: CAPS,
        mariadb: MariadbCapabilities(0),
        max_packet: 1 << 24,
        collation: 255,
        user: b"app".to_vec(),
        auth: Vec::new(),
        database: None,
        plugin: Some(CACHING_SHA2.to_vec()),
        attributes: Vec::new(),
        zstd_level: 0,
    }
    .encode(&mut response, 1);
    assert!(matches!(greet.on_packet(1, &response[4..]), Ok(Step::NeedAccount)));
    let Ok(Step::Send(switch)) = greet.account(caching(Some("secret"))) else { panic!() };
    let nonce = AuthSwitch::parse(&switch[4..]).unwrap().nonce().unwrap();
    assert_ne!(nonce, NONCE);
    let answer = auth::caching_sha2_token(b"secret", &nonce);
    assert!(matches!(greet.on_packet(3, &answer), Ok(Step::Done { .. })));
}

#[test]
fn a_recovered_hash_is_good_for_native_accounts_only() {
    let rsa = Arc::new(RsaKey::generate().unwrap());
    let hash = Credential::Sha1(auth::stage1(b"secret"));
    let request = LoginRequest { credential: hash.clone(), ..request("") };
    let begun = || Greet::new(offer(CACHING_SHA2, &rsa, false), NONCE);
    // It begins with the native plugin, so that no switch is needed.
    let end = converse(begun(), request.clone(), &native("secret"), "");
    assert_eq!(end, (End::In(hash), 1));
    let end = converse(begun(), request, &caching(Some("secret")), "");
    let plugin = "caching_sha2_password".to_owned();
    assert_eq!(end.0, End::ClientGaveUp(LoginError::PasswordUnknown { plugin }));
}

/// ed25519: the primary's nonce goes to the client, the client's signature to the primary.
#[test]
fn the_client_answers_the_server_where_only_it_can() {
    let rsa = Arc::new(RsaKey::generate().unwrap());
    let (mut greet, greeting) = Greet::new(offer(NATIVE, &rsa, false), NONCE);
    let mut client = Login::new(request("secret"));
    let Ok(LoginStep::Send(response)) = client.on_packet(0, &greeting[4..]) else { panic!() };
    assert!(matches!(greet.on_packet(1, &response[4..]), Ok(Step::NeedAccount)));
    assert!(matches!(greet.account(Account::Relayed), Ok(Step::Relay)));

    let credential = Credential::Relayed { private: false };
    let mut ours = Login::new(LoginRequest { credential, ..request("") });
    let Ok(LoginStep::Send(response)) = ours.on_packet(0, &greeting[4..]) else { panic!() };
    assert_ne!(response, b"", "and it names a plugin that no server has");
    let nonce = [9; 32];
    let question = [b"\xfeclient_ed25519\0", &nonce[..]].concat();
    let Ok(LoginStep::Ask(asked)) = ours.on_packet(2, &question) else { panic!() };
    assert_eq!(asked, question);

    let relayed = greet.question(&asked);
    let (seq, relayed) = packets(&relayed).remove(0);
    let Ok(LoginStep::Send(answer)) = client.on_packet(seq, &relayed) else { panic!() };
    let (seq, answer) = packets(&answer).remove(0);
    let Ok(Step::Answer(answer)) = greet.on_packet(seq, &answer) else { panic!() };
    assert_eq!(answer, crate::protocol::ed25519::sign(b"secret", &nonce));
    let Ok(LoginStep::Send(sent)) = ours.answered(&answer) else { panic!() };
    assert_eq!(packets(&sent), [(3, answer)]);
    let ok = b"\0\0\0\x02\0\0\0";
    assert!(matches!(ours.on_packet(4, ok), Ok(LoginStep::Done { .. })));
}

/// Passwords in clear are relayed only where nobody can listen on either side.
#[test]
fn a_relayed_login_reveals_nothing_to_who_listens() {
    let rsa = Arc::new(RsaKey::generate().unwrap());
    let (_, greeting) = Greet::new(offer(NATIVE, &rsa, false), NONCE);
    let asks: [(&[u8], bool); 5] = [
        (b"\xfemysql_clear_password\0", false),
        (b"\xfedialog\0\x02Password: ", false),
        (b"\xfecaching_sha2_password\0abcdefghijklmnopqrst\0", false),
        (b"\xfeparsec\0abcdefghijklmnopqrstabcdefghijkl", true),
        (b"\xfemysql_native_password\0abcdefghijklmnopqrst\0", true),
    ];
    for (ask, harmless) in asks {
        for (private, secure) in [(false, false), (true, false), (false, true), (true, true)] {
            let credential = Credential::Relayed { private };
            let mut login = Login::new(LoginRequest { credential, secure, ..request("") });
            login.on_packet(0, &greeting[4..]).unwrap();
            let asked = login.on_packet(2, ask).is_ok();
            assert_eq!(asked, harmless || (private && secure), "{ask:?} {private} {secure}");
        }
    }
    // A question before the server has named a plugin, and the scheme before 4.1.
    for ask in [&b"\x01Password: "[..], b"\xfe"] {
        let credential = Credential::Relayed { private: true };
        let mut login = Login::new(LoginRequest { credential, secure: true, ..request("") });
        login.on_packet(0, &greeting[4..]).unwrap();
        assert!(login.on_packet(2, ask).is_err(), "{ask:?}");
    }
}

/// What a server that is not who it seems may ask for.
#[test]
fn no_server_talks_a_client_into_giving_its_password_away() {
    let rsa = Arc::new(RsaKey::generate().unwrap());
    let (_, greeting) = Greet::new(offer(NATIVE, &rsa, false), NONCE);
    let switch = |plugin: &[u8]| {
        let mut out = Vec::new();
        AuthSwitch::encode(&mut out, 2, plugin, &NONCE);
        out[4..].to_vec()
    };
    let asks = [
        switch(b"mysql_clear_password"),
        switch(b"mysql_old_password"),
        switch(b"dialog"),
        switch(b"sha256_password"),
        b"\xfe".to_vec(),
        b"\x01\x04".to_vec(),
        b"\x01\x03".to_vec(),
        b"\x02mysql_clear_password\0".to_vec(),
        b"".to_vec(),
    ];
    for ask in asks {
        let mut login = Login::new(LoginRequest { rsa: RsaPolicy::Never, ..request("secret") });
        login.on_packet(0, &greeting[4..]).unwrap();
        assert!(login.on_packet(2, &ask).is_err(), "{ask:?}");
        // Nothing more is said, whatever comes.
        assert!(login.on_packet(3, &switch(NATIVE)).is_err());
    }
    // Again and again another plugin.
    let mut login = Login::new(request("secret"));
    login.on_packet(0, &greeting[4..]).unwrap();
    login.on_packet(2, &switch(NATIVE)).unwrap();
    login.on_packet(4, &switch(CACHING_SHA2)).unwrap();
    login.on_packet(6, &switch(NATIVE)).unwrap();
    login.on_packet(8, &switch(CACHING_SHA2)).unwrap();
    assert_eq!(login.on_packet(10, &switch(NATIVE)).unwrap_err(), LoginError::TooManySwitches);
}

#[test]
fn a_refusal_instead_of_a_greeting_is_passed_on() {
    let error = b"\xff\x6a\x04Host 'h' is not allowed";
    match Login::new(request("x")).on_packet(0, error) {
        Ok(LoginStep::Refused(payload)) => assert_eq!(payload, error),
        other => panic!("{other:?}"),
    }
    // Where TLS is wanted, whoever says so has not shown who it is.
    let capabilities = CAPS.with(Capabilities::SSL);
    let mut login = Login::new(LoginRequest { capabilities, ..request("x") });
    assert_eq!(login.on_packet(0, error).unwrap_err(), LoginError::RefusedBeforeTls(1130));
}

#[test]
fn tls_is_begun_only_where_it_is_offered() {
    let rsa = Arc::new(RsaKey::generate().unwrap());
    let ssl = CAPS.with(Capabilities::SSL);
    let asking = || Login::new(LoginRequest { capabilities: ssl, ..request("secret") });
    let (mut greet, first) = Greet::new(offer(NATIVE, &rsa, false), NONCE);
    // Our client refuses a server that dropped the offer.
    assert_eq!(asking().on_packet(0, &first[4..]).unwrap_err(), LoginError::TlsNotOffered);
    // Our server refuses a client that asks all the same, and one that only claims.
    let (_, tls_first) =
        Greet::new(Offer { capabilities: ssl, ..offer(NATIVE, &rsa, false) }, NONCE);
    let mut login = asking();
    let Ok(LoginStep::Tls(ask)) = login.on_packet(0, &tls_first[4..]) else { panic!() };
    assert_eq!(greet.on_packet(1, &ask[4..]).unwrap_err().code, 1043);
    let Ok(LoginStep::Send(response)) = login.tls_ready(Server::Verified) else { panic!() };
    let (mut greet, _) = Greet::new(offer(NATIVE, &rsa, false), NONCE);
    assert_eq!(greet.on_packet(1, &response[4..]).unwrap_err().code, 1043);
    // Where it is offered, the login goes on inside.
    let secure = Offer { capabilities: ssl, ..offer(CACHING_SHA2, &rsa, false) };
    let (mut greet, first) = Greet::new(secure, NONCE);
    let mut login = asking();
    let Ok(LoginStep::Tls(ask)) = login.on_packet(0, &first[4..]) else { panic!() };
    assert!(matches!(greet.on_packet(1, &ask[4..]), Ok(Step::Tls)));
    let Ok(LoginStep::Send(response)) = login.tls_ready(Server::Verified) else { panic!() };
    assert_eq!(response[3], 2);
    assert!(matches!(greet.on_packet(2, &response[4..]), Ok(Step::NeedAccount)));
    assert_eq!(greet.hello().user, b"app");
    // Asked for the password itself there, in which no RSA is spoken, our client gives it to
    // whom it knows.
    for (server, told) in [(Server::Verified, true), (Server::Anybody, false)] {
        let mut login = asking();
        login.on_packet(0, &first[4..]).unwrap();
        login.tls_ready(server).unwrap();
        match login.on_packet(3, b"\x01\x04") {
            Ok(LoginStep::Send(answer)) => assert!(told && answer[4..] == *b"secret\0"),
            other => assert!(!told && other.unwrap_err() == LoginError::Insecure),
        }
    }
}

#[test]
fn packets_out_of_order_and_out_of_turn_are_refused() {
    let rsa = Arc::new(RsaKey::generate().unwrap());
    let (mut greet, _) = Greet::new(offer(NATIVE, &rsa, false), NONCE);
    assert_eq!(greet.on_packet(0, b"x").unwrap_err().code, 1156);
    assert_eq!(greet.on_packet(1, b"\x05\0").unwrap_err().code, 1043);
    assert_eq!(greet.hello().capabilities, Capabilities(0));
    assert!(greet.account(native("x")).is_err());
    assert!(matches!(greet.checked(true), Step::Denied));
    let (mut greet, _) = Greet::new(offer(NATIVE, &rsa, false), NONCE);
    let long = vec![b'x'; LOGIN_PACKET_MAX + 1];
    assert_eq!(greet.on_packet(1, &long).unwrap_err().code, 1153);
    let mut login = Login::new(request("x"));
    assert_eq!(login.on_packet(1, b"\x0a").unwrap_err(), LoginError::OutOfOrder);
}

#[test]
fn a_change_of_user_is_challenged_anew() {
    let rsa = Arc::new(RsaKey::generate().unwrap());
    let other = *b"TSRQPONMLKJIHGFEDCBA";
    let previous =
        Hello { capabilities: CAPS, nonce: other, login_nonce: NONCE, ..Hello::default() };
    let fresh = *b"ABCDEFGHIJKLMNOPQRST";
    let replay = auth::native_token(&auth::stage1(b"secret"), &other).to_vec();
    let user = ChangeUser {
        user: b"other".to_vec(),
        auth: replay.clone(),
        database: None,
        collation: Some(309),
        plugin: Some(NATIVE.to_vec()),
        attributes: Vec::new(),
    };
    let begin = |caps: Capabilities| {
        let mut raw = Vec::new();
        user.encode(&mut raw, caps);
        let previous = Hello { capabilities: caps, ..previous.clone() };
        Greet::change_user(offer(NATIVE, &rsa, false), &previous, &raw[5..], fresh).unwrap()
    };
    let mut greet = begin(CAPS);
    assert_eq!(greet.hello().user, b"other");
    assert_eq!((greet.hello().collation, greet.hello().wide_collation), (45, Some(309)));
    let Ok(Step::Send(switch)) = greet.account(native("secret")) else { panic!() };
    assert_eq!(switch[3], 1);
    assert_eq!(AuthSwitch::parse(&switch[4..]).unwrap().nonce(), Some(fresh));
    assert!(matches!(greet.on_packet(2, &replay), Ok(Step::Denied)));
    let right = auth::native_token(&auth::stage1(b"secret"), &fresh);
    let mut greet = begin(CAPS);
    assert!(matches!(greet.account(native("secret")), Ok(Step::Send(_))));
    assert!(matches!(greet.on_packet(2, &right), Ok(Step::Done { .. })));
    assert_eq!(greet.next_seq(), 3);
    // A client without plugins can only answer the nonce that it has.
    let mut greet = begin(CAPS.without(Capabilities::PLUGIN_AUTH));
    assert!(matches!(greet.account(native("secret")), Ok(Step::Done { .. })));
}

#[test]
fn a_change_of_user_may_answer_the_nonce_of_the_login() {
    let rsa = Arc::new(RsaKey::generate().unwrap());
    let previous = Hello { capabilities: CAPS, login_nonce: NONCE, ..Hello::default() };
    let fresh = *b"ABCDEFGHIJKLMNOPQRST";
    let begin = |plugin: &[u8]| {
        let user = ChangeUser {
            user: b"other".to_vec(),
            auth: auth::native_token(&auth::stage1(b"secret"), &NONCE).to_vec(),
            database: None,
            collation: Some(45),
            plugin: Some(plugin.to_vec()),
            attributes: Vec::new(),
        };
        let mut raw = Vec::new();
        user.encode(&mut raw, CAPS);
        Greet::change_user(offer(NATIVE, &rsa, false), &previous, &raw[5..], fresh).unwrap()
    };
    let mut greet = begin(NATIVE);
    assert!(matches!(greet.account(native("secret")), Ok(Step::Done { .. })));
    assert!(greet.used_password());
    for (account, plugin) in [
        (native("wrong"), NATIVE),
        (native("secret"), CACHING_SHA2),
        (Account::Native { double_sha1: None }, NATIVE),
        (Account::Unknown { plugin: NATIVE.to_vec() }, NATIVE),
    ] {
        let step = begin(plugin).account(account);
        assert!(matches!(step, Ok(Step::Send(_))), "{step:?}");
    }
}

#[test]
fn no_packets_make_either_machine_panic() {
    let rsa = Arc::new(RsaKey::generate().unwrap());
    let (_, greeting) = Greet::new(offer(CACHING_SHA2, &rsa, false), NONCE);
    let payloads = proptest::collection::vec(any::<u8>(), 0..120);
    let strategy = (proptest::collection::vec(payloads, 1..5), any::<u32>());
    let mut runner = proptest::test_runner::TestRunner::default();
    let run = |(packets, caps): (Vec<Vec<u8>>, u32)| {
        let (mut greet, _) = Greet::new(offer(CACHING_SHA2, &rsa, false), NONCE);
        let mut login = Login::new(request("secret"));
        login.on_packet(0, &greeting[4..]).unwrap();
        for mut payload in packets {
            for seq in 2..4 {
                let _ = login.clone().on_packet(seq, &payload);
            }
            let _ = login.on_packet(2, &payload);
            // The first packet gets past the fixed fields.
            if matches!(greet.state, State::Greeted) {
                payload.splice(0..0, [0; 28]);
                payload.splice(0..0, (caps | 512).to_le_bytes());
            }
            let seq = greet.next_seq();
            if let Ok(Step::NeedAccount) = greet.on_packet(seq, &payload) {
                let _ = greet.account(caching(None));
            }
        }
        Ok(())
    };
    runner.run(&strategy, run).unwrap();
}

#[test]
fn character_sets_with_zero_bytes_are_no_client_s() {
    let speaks = |collation| Hello { collation, ..Hello::default() }.speaks_in_wide_characters();
    // ucs2, utf16, utf16le, utf32 by their ids in information_schema.COLLATIONS.
    assert!([35, 90, 54, 101, 56, 62, 60, 160, 183].into_iter().all(speaks));
    // big5, latin1, gbk, utf8mb3, binary, cp932, gb18030, utf8mb4.
    assert!(![1, 8, 28, 33, 63, 95, 248, 255, 45, 46, 192, 224].into_iter().any(speaks));
}
