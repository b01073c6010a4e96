use super::*;
use haven_fs::model::Model;
use proptest::prelude::*;

const SMALL: Limits = Limits {
    per_client: 3,
    total: 5,
    kept_ns: 100,
};
/// Without limits that matter here.
const LARGE: Limits = Limits {
    per_client: 1_000,
    total: 1_000,
    kept_ns: u64::MAX,
};
const TERM: u64 = 7;

fn client(n: u8) -> IpAddr {
    IpAddr::from([10, 0, 0, n])
}

fn in_term(term: u64, number: u64) -> ConnectionId {
    ConnectionId { term, number }
}

fn connection(number: u64) -> ConnectionId {
    in_term(TERM, number)
}

/// A change over a connection, from a port of the same number.
fn over(connection: ConnectionId, seq: u64) -> Asked {
    Asked {
        caller: 1,
        id: ChangeId { connection, seq },
        port: connection.number as u16,
        news: Vec::new(),
    }
}

fn arrived(connection: ConnectionId, first: u64, last: u64) -> News {
    News::Arrived {
        connection,
        first,
        last,
    }
}

/// A cache with its table, fed with entries.
struct Lab {
    table: Model,
    cache: ReplyCache,
    index: u64,
    served_ns: u64,
}

impl Lab {
    fn new(limits: Limits) -> Self {
        Self {
            table: Model::new(),
            cache: ReplyCache::empty(limits),
            index: 0,
            served_ns: 0,
        }
    }

    /// The log index of the execution that answers this request: of this one if it is new. The reply is that index.
    fn ask(&mut self, client: IpAddr, xid: u32, asked: Option<&Asked>) -> u64 {
        // 250 apart, so that the byte order of the keys matters.
        self.index += 250;
        let request = Request {
            client,
            xid,
            checksum: 1,
            asked,
        };
        let (table, cache) = (&mut self.table, &mut self.cache);
        let expected = cache.find(&request).map(<[u8]>::to_vec);
        cache
            .hear(table, asked.map_or(&[], |asked| &asked.news))
            .unwrap();
        let taken = cache
            .take(table, self.index, &request, self.served_ns)
            .unwrap();
        assert_eq!(
            expected,
            taken.as_ref().map(|r| r.to_vec()),
            "what was foretold"
        );
        let reply = taken.unwrap_or_else(|| {
            let reply = self.index.to_le_bytes();
            cache
                .keep(table, self.index, &request, &reply, self.served_ns)
                .unwrap();
            Bytes::copy_from_slice(&reply)
        });
        self.check();
        u64::from_le_bytes(reply[..].try_into().unwrap())
    }

    fn is_new(&mut self, asked: &Asked) -> bool {
        self.ask(client(1), 1, Some(asked)) == self.index
    }

    fn hear(&mut self, news: &[News]) {
        self.cache.hear(&mut self.table, news).unwrap();
        self.check();
    }

    /// What follows from the rows is what it should be, and a node that starts now has the same.
    fn check(&self) {
        let cache = &self.cache;
        let loaded = ReplyCache::load_with(&self.table, cache.limits).unwrap();
        assert_eq!(loaded, *cache);
        assert_eq!(loaded.by_key, cache.by_key);
        assert_eq!(loaded.by_id, cache.by_id);
        assert_eq!(loaded.by_client, cache.by_client);
        assert_eq!(loaded.by_count, cache.by_count);
        for gone in &cache.gone {
            assert!(cache.has_replies(*gone), "{gone:?}");
        }
    }
}

#[test]
fn connections_that_are_there_are_nobody_elses() {
    let mut lab = Lab::new(LARGE);
    assert!(lab.is_new(&over(connection(1), 1)));
    assert!(
        lab.is_new(&over(connection(2), 1)),
        "two containers at once"
    );
    assert!(
        lab.is_new(&over(connection(1), 2)),
        "the same again, on purpose"
    );
    assert_eq!(lab.cache.len(), 3);
}

#[test]
fn the_same_proposal_twice_in_the_log_is_one_request() {
    let mut lab = Lab::new(LARGE);
    let asked = over(connection(1), 1);
    assert!(lab.is_new(&asked));
    assert!(!lab.is_new(&asked));
    assert!(!lab.is_new(&asked));
    assert_eq!(lab.cache.len(), 1);
}

#[test]
fn after_an_election_every_connection_of_before_is_gone() {
    let mut lab = Lab::new(LARGE);
    let first = lab.ask(client(1), 1, Some(&over(connection(9), 5)));
    let again = over(in_term(TERM + 1, 1), 1);
    assert_eq!(lab.ask(client(1), 1, Some(&again)), first);
    // It belongs to the new connection now.
    assert!(lab.is_new(&over(in_term(TERM + 1, 2), 1)));
    let third = over(in_term(TERM + 2, 1), 1);
    assert!(!lab.is_new(&third));
    assert!(!lab.is_new(&over(in_term(TERM + 2, 2), 1)), "the other's");
    assert!(lab.is_new(&over(in_term(TERM + 2, 3), 1)), "all were taken");
}

#[test]
fn a_connection_is_gone_when_that_is_told() {
    let mut lab = Lab::new(LARGE);
    assert!(lab.is_new(&over(connection(1), 1)));
    let mut retry = over(connection(2), 1);
    retry.news = vec![News::Gone {
        connection: connection(1),
    }];
    assert!(!lab.is_new(&retry), "told with the same entry");
    assert!(lab.cache.gone.is_empty(), "nothing is left of it");
    lab.hear(&[News::Gone {
        connection: connection(2),
    }]);
    assert!(!lab.is_new(&over(connection(3), 1)), "told before");
    // Of a connection without replies nothing is kept.
    lab.hear(&[News::Gone {
        connection: connection(8),
    }]);
    assert!(lab.cache.gone.is_empty());
}

#[test]
fn what_has_arrived_is_not_asked_for_again() {
    let mut lab = Lab::new(LARGE);
    for seq in 1..=4 {
        assert!(lab.is_new(&over(connection(1), seq)));
    }
    lab.hear(&[arrived(connection(1), 2, 3), arrived(connection(2), 1, 9)]);
    assert_eq!(lab.cache.len(), 2);
    // Told with the entry that asks: arrival counts before the end.
    let mut other = over(connection(2), 1);
    other.news = vec![
        arrived(connection(1), 1, 1),
        arrived(connection(1), 4, 4),
        News::Gone {
            connection: connection(1),
        },
    ];
    assert!(lab.is_new(&other));
    assert_eq!(lab.cache.len(), 1);
}

#[test]
fn of_several_replies_first_that_of_the_same_port_then_the_newest() {
    let mut lab = Lab::new(LARGE);
    let ask = |lab: &mut Lab, asked: &Asked| lab.ask(client(1), 1, Some(asked));
    let [a, b, c] = [1, 2, 3].map(|n| ask(&mut lab, &over(connection(n), 1)));
    let next = |number, port| Asked {
        port,
        ..over(in_term(TERM + 1, number), 1)
    };
    assert_eq!(ask(&mut lab, &next(1, 2)), b, "its port");
    assert_eq!(ask(&mut lab, &next(2, 99)), c, "the newest");
    assert_eq!(ask(&mut lab, &next(3, 99)), a);
}

#[test]
fn another_caller_is_another_request() {
    let mut lab = Lab::new(LARGE);
    assert!(lab.is_new(&over(connection(1), 1)));
    let mut other = over(in_term(TERM + 1, 1), 1);
    other.caller = 2;
    assert!(lab.is_new(&other));
    assert_ne!(
        lab.ask(client(2), 1, Some(&over(in_term(TERM + 1, 2), 1))),
        250
    );
    assert_ne!(
        lab.ask(client(1), 2, Some(&over(in_term(TERM + 1, 2), 2))),
        250
    );
    assert!(!lab.is_new(&over(in_term(TERM + 1, 2), 3)));
}

#[test]
fn replies_from_before_connections_were_told_are_found() {
    let mut lab = Lab::new(LARGE);
    let first = lab.ask(client(1), 1, None);
    assert_eq!(lab.ask(client(1), 1, None), first);
    let asked = over(connection(1), 1);
    assert_eq!(lab.ask(client(1), 1, Some(&asked)), first);
    assert!(lab.is_new(&over(connection(2), 1)), "it was taken");
}

#[test]
fn the_address_with_most_gives_way_and_there_its_oldest() {
    let mut lab = Lab::new(SMALL);
    let mut seq = 0;
    let mut ask = |lab: &mut Lab, n| {
        seq += 1;
        lab.ask(
            client(n),
            seq as u32,
            Some(&over(connection(n.into()), seq)),
        )
    };
    let kept = ask(&mut lab, 1);
    let oldest = ask(&mut lab, 2);
    for _ in 0..9 {
        ask(&mut lab, 2);
    }
    assert_eq!(lab.cache.len(), SMALL.total);
    assert!(lab.cache.rows.contains_key(&kept), "others keep theirs");
    assert!(!lab.cache.rows.contains_key(&oldest));
    assert_eq!(lab.cache.by_client[&client(2)].len(), 4);
}

#[test]
fn a_reply_is_kept_for_its_time_of_service() {
    let mut lab = Lab::new(SMALL);
    let ask = |lab: &mut Lab, xid| lab.ask(client(1), xid, Some(&over(connection(1), xid.into())));
    ask(&mut lab, 1);
    lab.served_ns = SMALL.kept_ns;
    ask(&mut lab, 2);
    assert_eq!(lab.cache.len(), 2, "its last moment");
    lab.served_ns += 1;
    ask(&mut lab, 3);
    assert_eq!(lab.cache.len(), 2);
    // Who asks again keeps it longer.
    lab.served_ns += 50;
    let again = over(in_term(TERM + 1, 1), 1);
    assert_eq!(lab.ask(client(1), 2, Some(&again)), 500);
    lab.served_ns += SMALL.kept_ns;
    ask(&mut lab, 4);
    let left: Vec<u32> = lab.cache.rows.values().map(|row| row.xid).collect();
    assert_eq!(left, [2, 4]);
}

/// Old entries mean what they meant: whoever applies one gets the rows that the program of then wrote.
#[test]
fn entries_of_version_1_are_bounded_as_they_were() {
    let fill = |requests: &[(u8, u32)]| {
        let mut lab = Lab::new(SMALL);
        for &(n, xid) in requests {
            lab.ask(client(n), xid, None);
        }
        let xids = lab.cache.rows.values().map(|row| row.xid);
        xids.collect::<Vec<_>>()
    };
    let one_client = [(1, 1), (2, 2), (1, 3), (1, 4), (1, 5)];
    assert_eq!(fill(&one_client), [2, 3, 4, 5], "its own oldest");
    let many = [(1, 1), (2, 2), (3, 3), (4, 4), (5, 5), (6, 6), (7, 7)];
    assert_eq!(fill(&many), [3, 4, 5, 6, 7], "the oldest of all");
}

#[test]
fn a_malformed_table_is_fatal() {
    for (key, value) in [
        (&b"r/short"[..], &b"x"[..]),
        (b"r/12345678", b"x"),
        (b"g/x", b""),
    ] {
        let mut table = Model::new();
        table.system_put(key, Some(value)).unwrap();
        assert!(ReplyCache::load(&table).is_err());
    }
}

#[test]
fn long_replies_are_our_own_mistake() {
    let mut lab = Lab::new(LARGE);
    let request = Request {
        client: client(1),
        xid: 1,
        checksum: 1,
        asked: None,
    };
    let reply = vec![0; REPLY_BYTES_MAX + 1];
    let kept = lab.cache.keep(&mut lab.table, 1, &request, &reply, 0);
    assert!(kept.is_err());
}

proptest! {
    /// Whatever is asked and told, memory and table agree, and bounds hold.
    #[test]
    fn memory_is_what_the_table_says(
        steps in proptest::collection::vec((0..6u8, 0..3u8, 0..3u32, 0..4u64, 0..4u64), 0..60)
    ) {
        let mut lab = Lab::new(SMALL);
        let mut term = 1;
        for (what, host, xid, number, seq) in steps {
            let connection = in_term(term, number);
            match what {
                0 => lab.hear(&[arrived(connection, seq, seq + 1)]),
                1 => lab.hear(&[News::Gone { connection }]),
                2 => term += 1,
                3 => lab.served_ns += 40,
                4 => drop(lab.ask(client(host), xid, None)),
                _ => drop(lab.ask(client(host), xid, Some(&over(connection, seq)))),
            }
            prop_assert!(lab.cache.len() <= SMALL.total);
        }
    }
}
