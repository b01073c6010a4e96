//! `haven bench` against `haven serve` on loopback: every workload does exactly what was asked, cleans up after
//! itself, and says clearly what is wrong.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use haven_proto::nfs3::{Cookie3, Cookieverf3};
use serde_json::Value;
use std::fs;
use std::net::TcpListener;
use std::process::{Output, Stdio};
use support::{Node, command, free_port, refusal};

fn bench(node: &Node, arguments: &[&str]) -> Output {
    let url = node.url("");
    let mut bench = command();
    bench.arg("bench").arg(&url).args(arguments);
    bench.stdin(Stdio::null()).output().unwrap()
}

/// What a bench that must succeed writes as JSON.
fn measured(node: &Node, arguments: &[&str]) -> Value {
    let output = bench(node, &[arguments, &["--json", "-"]].concat());
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{words}");
    serde_json::from_slice(&output.stdout).unwrap()
}

async fn names_at_root(node: &Node) -> Vec<String> {
    let client = node.client();
    let root = client.mount("/data").await.unwrap();
    let (start, verf) = (Cookie3(0), Cookieverf3::default());
    let page = client.readdir(&root, start, verf, 65536).await.unwrap();
    let names = page.entries.iter();
    let names = names.map(|e| String::from_utf8_lossy(&e.name.0).into_owned());
    names.filter(|n| n != "." && n != "..").collect()
}

#[tokio::test]
async fn every_workload_does_what_was_asked_and_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(dir.path(), free_port(), free_port());
    let all = "null,getattr,lookup,access,create,small-file,create-remove,write-seq,write-rand,read-seq,read-rand,\
               readdir,mixed";
    let json = measured(
        &node,
        &[
            "--workload",
            all,
            "--ops",
            "70",
            "--connections",
            "3",
            "--depth",
            "2",
            "--files",
            "40",
            "--verify",
            "--file-size",
            "128K",
            "--block",
            "8K",
        ],
    );
    let workloads = json["workloads"].as_array().unwrap();
    assert_eq!(workloads.len(), 13);
    for workload in workloads {
        let name = workload["name"].as_str().unwrap();
        let run = &workload["servers"][0]["runs"][0];
        assert_eq!(run["ops"], 70, "{name}");
        // Haven answers a WRITE when it is durable, so nothing is left for COMMIT.
        let calls = match name {
            "small-file" | "create-remove" => 140,
            _ => 70,
        };
        assert_eq!(run["calls"], calls, "{name}");
        let bytes = match name {
            "small-file" | "write-seq" | "write-rand" | "read-seq" | "read-rand" => 70 * 8192,
            "mixed" => run["bytes"].as_u64().unwrap(),
            _ => 0,
        };
        assert_eq!(run["bytes"], bytes, "{name}");
        let latency = &run["latency_us"];
        let at = |p: &str| latency[p].as_f64().unwrap();
        assert!(
            at("p50") > 0.0 && at("p50") <= at("p99") && at("p99") <= at("max"),
            "{name}: {latency}"
        );
        assert!(run["ops_per_second"].as_f64().unwrap() > 0.0, "{name}");
    }
    assert_eq!(names_at_root(&node).await, Vec::<String>::new());
}

#[test]
fn the_server_and_its_log_are_read() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(dir.path(), free_port(), free_port());
    let pid = node.pid().to_string();
    let socket = dir.path().join("control.sock");
    let json = measured(
        &node,
        &[
            "--workload",
            "small-file:ops=50,getattr:ops=50",
            "--connections",
            "1",
            "--server-pid",
            &pid,
            "--haven-status",
            socket.to_str().unwrap(),
        ],
    );
    let run = |workload: usize| &json["workloads"][workload]["servers"][0]["runs"][0];
    // One connection, one call at a time: CREATE and WRITE are a record and a flush each, or the log has lied.
    assert_eq!(run(0)["log"]["records"], 100);
    assert_eq!(run(0)["log"]["flushes"], 100);
    assert_eq!(run(1)["log"]["records"], 0);
    assert!(run(0)["server"]["rss_bytes"].as_u64().unwrap() > 1 << 20);
    assert_eq!(json["workloads"][1]["settings"]["ops"], 50);
}

#[tokio::test]
async fn servers_are_compared_in_turns() {
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let nodes = dirs
        .each_ref()
        .map(|d| Node::start(d.path(), free_port(), free_port()));
    let [a, b] = nodes.each_ref().map(|n| n.url(""));
    let out = tempfile::tempdir().unwrap();
    let [plot, json] = ["plot.svg", "out.json"].map(|f| out.path().join(f));
    let output = command()
        .args([
            "bench",
            &format!("a={a}"),
            &format!("b={b}"),
            "--workload",
            "null,create",
            "--ops",
            "20",
        ])
        .args(["--runs", "3", "--keep", "--seed", "7"])
        .arg("--plot")
        .arg(&plot)
        .arg("--json")
        .arg(&json)
        .output()
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{said}");
    let order: Vec<_> = said
        .lines()
        .filter_map(|l| l.strip_prefix("null ")?.split_once(':'))
        .map(|(run, _)| run)
        .collect();
    let turns = [
        "a run 1/3",
        "b run 1/3",
        "a run 2/3",
        "b run 2/3",
        "a run 3/3",
        "b run 3/3",
    ];
    assert_eq!(order, turns);
    let table = String::from_utf8(output.stdout).unwrap();
    assert!(
        table
            .lines()
            .all(|l| l.starts_with('|') && l.ends_with('|')),
        "{table}"
    );
    assert_eq!(table.matches("a / b").count(), 2, "{table}");
    let json: Value = serde_json::from_slice(&fs::read(json).unwrap()).unwrap();
    let ratio = &json["workloads"][0]["ratios"][0];
    assert_eq!(
        (ratio["of"].as_str(), ratio["to"].as_str()),
        (Some("a"), Some("b"))
    );
    assert!(ratio["ratio"]["ops_per_second"].as_f64().unwrap() > 0.0);
    let plot = fs::read_to_string(plot).unwrap();
    assert!(plot.starts_with("<svg") && plot.ends_with("</svg>\n"));
    assert_eq!(
        plot.matches("<circle").count(),
        2 * 2 * 2,
        "two workloads, two servers, p50 and p99"
    );
    for node in &nodes {
        let kept = names_at_root(node).await;
        assert_eq!(kept.len(), 1, "{kept:?}");
        assert!(kept[0].starts_with("haven-bench-7-"), "{kept:?}");
    }
}

#[test]
fn what_is_wrong_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(dir.path(), free_port(), free_port());
    let closed = free_port();
    let nobody = format!("nfs://127.0.0.1/data?nfsport={closed}&mountport={closed}");
    let mounted = node.url("");
    let other = mounted.replace("/data", "/nothing-here");
    let expect = |arguments: &[&str], words: &str| {
        let said = refusal(&[&["bench"], arguments].concat());
        assert!(said.contains(words), "{arguments:?}: {said}");
    };
    expect(&["data"], "give nfs://HOST");
    expect(&[&nobody], "cannot reach MOUNT at 127.0.0.1");
    expect(&[&other], "there is no such export");
    expect(&[&mounted, "--uid", "12345", "--gid", "12345"], "--uid 0");
    expect(
        &[&mounted, "--workload", "frobnicate"],
        "there is no workload `frobnicate`",
    );
    expect(
        &[&mounted, "--workload", "null:dept=3"],
        "there is no setting `dept`",
    );
    expect(&[&mounted, "--workload", "depth=3"], "name a workload");
    expect(
        &[&mounted, "--workload", "read-seq:block=2M"],
        "a block has 1 to 1048576 bytes",
    );
    expect(
        &[&mounted, "--workload", "read-seq:block=3K"],
        "not a multiple",
    );
    expect(&[&mounted, "--connections", "0"], "not a number from 1 to");
    expect(
        &[&mounted, "--connections", "1000", "--depth", "1000"],
        "connections times depth",
    );
    expect(&[&mounted, "--server-pid", "x"], "not a process id");
    expect(&[&mounted, &other], "give them labels");
    expect(
        &[&mounted, "--server-pid", "other=1"],
        "no server is called other",
    );
    expect(
        &[&mounted, "--haven-status", "/nonexistent"],
        "/nonexistent",
    );
    expect(&[&mounted, "--ops", "0"], "nothing to do");
}

/// A server that answers every call with the same bytes behind the xid.
fn impostor(answer: &'static [u8]) -> u16 {
    use std::io::{Read, Write};
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut call = [0; 4096];
            while let Ok(n) = stream.read(&mut call)
                && n > 8
            {
                let len = (answer.len() as u32 + 4) | 0x8000_0000;
                let reply = [&len.to_be_bytes(), &call[4..8], answer].concat();
                if stream.write_all(&reply).is_err() {
                    break;
                }
            }
        }
    });
    port
}

#[test]
fn a_reply_that_is_not_one_ends_the_bench() {
    // REPLY, accepted, no verifier, SUCCESS, then a mount result with a handle of four bytes and no flavours.
    let port =
        impostor(b"\0\0\0\x01\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x04root\0\0\0\0");
    let url = format!("nfs://127.0.0.1/data?nfsport={port}&mountport={port}");
    let said = refusal(&["bench", &url, "--ops", "10"]);
    assert!(said.contains("XDR") || said.contains("byte"), "{said}");
}
