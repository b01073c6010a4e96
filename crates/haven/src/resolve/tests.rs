//! Looking up names: what is believed, for how long, and how many at once.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use super::*;
use haven_config::Config;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Answers from a table; counts questions; is silent while `hold` is locked.
#[derive(Default)]
struct Table {
    names: BTreeMap<IpAddr, String>,
    addresses: Mutex<BTreeMap<String, Vec<IpAddr>>>,
    asked: AtomicUsize,
    hold: Mutex<()>,
}

impl Answers for Table {
    fn name(&self, address: IpAddr) -> io::Result<Option<String>> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let _silent = self.hold.lock();
        Ok(self.names.get(&address).cloned())
    }

    fn addresses(&self, name: &str) -> io::Result<Vec<IpAddr>> {
        let found = self.addresses.lock().get(name).cloned();
        found.ok_or_else(|| io::Error::other("no such name"))
    }
}

fn ip(last: u8) -> IpAddr {
    IpAddr::from([192, 0, 2, last])
}

fn table() -> Arc<Table> {
    let names = [
        (ip(1), "One.Example.org.".to_owned()),
        (ip(2), "stolen.example.org".to_owned()),
        (ip(3), "nowhere.example.org".to_owned()),
    ];
    let addresses = [
        ("one.example.org".to_owned(), vec![ip(9), ip(1)]),
        ("stolen.example.org".to_owned(), vec![ip(7)]),
    ];
    Arc::new(Table {
        names: names.into(),
        addresses: Mutex::new(addresses.into()),
        ..Table::default()
    })
}

#[tokio::test]
async fn names_count_only_if_they_lead_back() {
    let resolver = Resolver::on(table());
    let names = |last| resolver.names(ip(last));
    assert_eq!(
        names(1).await.as_deref(),
        Some(&["one.example.org".to_owned()][..])
    );
    for last in [2, 3, 4] {
        assert_eq!(names(last).await.as_deref(), Some(&[][..]), "{last}");
    }
}

#[tokio::test]
async fn an_answer_is_asked_for_once() {
    let table = table();
    let resolver = Resolver::on(Arc::clone(&table) as Arc<dyn Answers>);
    assert!(resolver.known(ip(1)).is_none());
    let (a, b) = tokio::join!(resolver.names(ip(1)), resolver.names(ip(1)));
    assert!(a.is_some() && a == b);
    assert_eq!(resolver.known(ip(1)), a);
    assert_eq!(table.asked.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn what_takes_long_is_not_waited_for() {
    let table = table();
    let resolver = Resolver::on(Arc::clone(&table) as Arc<dyn Answers>);
    let (silence, hold) = std::sync::mpsc::channel::<()>();
    let own = Arc::clone(&table);
    let (held, is_held) = tokio::sync::oneshot::channel();
    let holder = std::thread::spawn(move || {
        let _silent = own.hold.lock();
        held.send(()).unwrap();
        let _ = hold.recv();
    });
    is_held.await.unwrap();
    let soon = Duration::from_millis(5);
    assert_eq!(resolver.names_within(ip(1), soon).await, None);
    drop(silence);
    holder.join().unwrap();
    let later = resolver.names(ip(1)).await;
    assert!(later.is_some_and(|names| names.len() == 1));
    assert_eq!(
        table.asked.load(Ordering::SeqCst),
        1,
        "still the same question"
    );
}

#[test]
fn old_answers_are_kept_while_there_are_no_new_ones() {
    let resolver = Resolver::on(table());
    let now = Instant::now();
    let known = |names: &[String], age: Duration, again: Duration| Known {
        names: names.into(),
        since: now.checked_sub(age),
        again: now.checked_sub(age).unwrap_or(now) + again,
        asking: false,
    };
    let name = ["one.example.org".to_owned()];
    assert!(known(&name, KEEP / 2, REFRESH).usable(now));
    assert!(!known(&name, KEEP, REFRESH).usable(now));
    assert!(known(&[], REFRESH_NONE / 2, REFRESH_NONE).usable(now));
    assert!(!known(&[], REFRESH_NONE, REFRESH_NONE).usable(now));
    let entry = known(&name, REFRESH, REFRESH);
    resolver.clients.lock().insert(ip(1), entry);
    resolver.learn(ip(1), Err(io::Error::other("down")));
    let clients = resolver.clients.lock();
    assert_eq!(clients[&ip(1)].names[..], name);
}

#[test]
fn the_oldest_answers_make_room() {
    let mut clients = BTreeMap::new();
    let now = Instant::now();
    for n in 0..CLIENTS_MAX as u32 {
        let known = Known {
            names: Arc::default(),
            since: None,
            again: now + Duration::from_secs(u64::from(n)),
            asking: n == 0,
        };
        clients.insert(IpAddr::from(n.to_be_bytes()), known);
    }
    make_room(&mut clients, IpAddr::from([0, 0, 0, 7]));
    assert_eq!(clients.len(), CLIENTS_MAX);
    make_room(&mut clients, ip(1));
    assert_eq!(clients.len(), CLIENTS_MAX - 1);
    assert!(
        clients.contains_key(&IpAddr::from([0; 4])),
        "it is being asked for"
    );
    assert!(!clients.contains_key(&IpAddr::from([0, 0, 0, 1])));
}

#[tokio::test]
async fn host_names_of_the_exports_get_their_addresses() {
    let text = "[node]\ndata = \"/d\"\n[[export]]\npath = \"/a\"\n\
                clients = [\"one.example.org\", \"nowhere.example.org\", \"10.0.0.1\"]";
    let config = Config::parse(text).unwrap();
    let exports = Exports::new(&config.exports, Vec::new());
    let table = table();
    let answers = Arc::clone(&table) as Arc<dyn Answers>;
    let mut hosts = HostTable::default();
    hosts.round(&exports, &answers).await;
    let expect = |one: Vec<IpAddr>| -> Hosts {
        [
            ("one.example.org".into(), one),
            ("nowhere.example.org".into(), vec![]),
        ]
        .into()
    };
    assert_eq!(hosts.hosts(), expect(vec![ip(9), ip(1)]));
    table.addresses.lock().clear();
    hosts.round(&exports, &answers).await;
    assert_eq!(
        hosts.hosts(),
        expect(vec![ip(9), ip(1)]),
        "kept for a while"
    );
    let lost = Err(io::Error::other("down"));
    hosts.learn("one.example.org".into(), lost, Instant::now() + KEEP);
    assert_eq!(hosts.hosts(), expect(vec![]));
    exports.set(&[]);
    hosts.round(&exports, &answers).await;
    assert!(hosts.hosts().is_empty());
}
