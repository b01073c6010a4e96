//! A little network: a bridge, and nodes with one cable each.

use std::time::{Duration, Instant};

use haven_platform::addr::{self, Placed, Subnet};
use haven_platform::link;
use haven_platform::netns::Netns;

/// Far longer than anything here takes.
pub const LIMIT: Duration = Duration::from_secs(10);

/// A node on the bridge.
pub struct Node {
    pub netns: Netns,
    /// The end of its cable at the bridge.
    pub plug: String,
}

/// A bridge and its nodes `10.9.0.N/24`, `fd09::N/64`, N counting from 1.
pub struct Lan {
    bridge: Netns,
    pub nodes: Vec<Node>,
}

impl Lan {
    pub fn new(nodes: usize) -> Self {
        let bridge = Netns::new().unwrap();
        bridge.run(|| link::add_bridge("br0").unwrap()).unwrap();
        let mut lan = Self {
            bridge,
            nodes: Vec::new(),
        };
        for number in 1..=nodes {
            lan.plug_in(number);
        }
        let ports_run = || {
            let running = || link::list().unwrap().iter().all(|link| link.running);
            lan.bridge.run(running).unwrap() && lan.nodes.iter().all(|node| node.run(running))
        };
        assert!(comes(ports_run));
        lan
    }

    fn plug_in(&mut self, number: usize) {
        let netns = Netns::new().unwrap();
        let plug = format!("port{number}");
        self.bridge
            .run(|| {
                link::add_veth(&plug, "eth0", &netns).unwrap();
                link::attach(&plug, "br0").unwrap();
                link::set_up(&plug, true).unwrap();
            })
            .unwrap();
        let node = Node { netns, plug };
        node.run(|| {
            link::set_up("eth0", true).unwrap();
            for own in [format!("10.9.0.{number}/24"), format!("fd09::{number}/64")] {
                addr::add(&placed(&own), None).unwrap();
            }
        });
        self.nodes.push(node);
    }

    /// Pulls a node's cable.
    pub fn unplug(&self, node: usize) {
        self.bridge
            .run(|| link::detach(&self.nodes[node].plug).unwrap())
            .unwrap();
    }

    pub fn replug(&self, node: usize) {
        self.bridge
            .run(|| link::attach(&self.nodes[node].plug, "br0").unwrap())
            .unwrap();
    }
}

impl Node {
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        self.netns.run(work).unwrap()
    }

    pub fn has(&self, placed: &Placed) -> bool {
        self.run(|| addr::is_here(placed.ip()).unwrap())
    }
}

/// On the node's only cable.
pub fn placed(text: &str) -> Placed {
    let subnet: Subnet = text.parse().unwrap();
    addr::place(subnet, Some("eth0")).unwrap()
}

/// Waits for something that the kernel or another process does; true if it came.
pub fn comes(mut condition: impl FnMut() -> bool) -> bool {
    let start = Instant::now();
    while start.elapsed() < LIMIT {
        if condition() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    false
}
