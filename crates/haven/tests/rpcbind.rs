//! The port mapper as clients see it, with Debian's rpcbind and its tools, each time in network and mount
//! namespaces of their own with a private `/run`.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::path::Path;
use std::process::{Command, Stdio};

/// Makes `/run` and the network private, and gives the script helpers. `$1`: the binary, `$2`: a directory.
const PREAMBLE: &str = r#"
set -eu
haven=$1 dir=$2
PATH=$PATH:/usr/sbin:/sbin
unset RUST_LOG
mount --make-rprivate /
mount -t tmpfs tmpfs /run
mkdir -p /run/rpcbind
ip link set lo up
ip addr add 10.9.9.1/24 dev lo
ip addr add fd09::1/64 dev lo nodad
fail() { echo "FAILED: $*" >&2; cat "$dir"/*.log >&2; exit 1; }
# Runs a command until it succeeds, for ten seconds.
soon() { n=0; until "$@" >/dev/null 2>&1; do n=$((n + 1)); [ $n -lt 200 ] || fail "never: $*"; sleep 0.05; done; }
registered() { rpcinfo -p 127.0.0.1 | grep -Eq "^ *$1 +$2 +$3 +$4( |\$)"; }
# With network and universal address.
bound() { rpcinfo 127.0.0.1 | awk -v p="$1" -v v="$2" -v n="$3" -v a="$4" '$1 == p && $2 == v && $3 == n && $4 == a { f = 1 } END { exit !f }'; }
# Over which networks, sorted.
networks() { rpcinfo 127.0.0.1 | awk -v p="$1" '$1 == p { print $3 }' | sort -u | tr '\n' ' '; }
over() { [ "$(networks "$1")" = "$2" ]; }
not() { ! "$@"; }
serve() { "$haven" serve --config "$dir/haven.toml" 2>>"$dir/haven.log" & node=$!; }
says() { grep -q "$1" "$dir/haven.log"; }
config() { printf '[node]\ndata = "%s/data"\n[service]\n%s\n[[export]]\npath = "/data"\n' "$dir" "$1" >"$dir/haven.toml"; }
trap 'kill $node $rpcbind $other 2>/dev/null || true' EXIT
node= rpcbind= other=
"#;

/// Runs a script in its namespaces; `false` where that is impossible.
fn isolated(script: &str) -> bool {
    let possible = |command: &str, arguments: &[&str]| {
        let mut command = Command::new(command);
        command.args(arguments).stdout(Stdio::null());
        command
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|s| s.success())
    };
    if !possible("unshare", &["-n", "-m", "true"]) {
        eprintln!("SKIPPED: no namespaces here (root needed)");
        return false;
    }
    for tool in ["rpcbind", "rpcinfo", "showmount", "ip"] {
        if !["/usr/sbin", "/sbin", "/usr/bin", "/bin"]
            .iter()
            .any(|d| Path::new(d).join(tool).exists())
        {
            eprintln!("SKIPPED: {tool} is missing (Debian: rpcbind, nfs-common)");
            return false;
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let output = Command::new("unshare")
        .args(["-n", "-m", "sh", "-c"])
        .arg(format!("{PREAMBLE}\n{script}"))
        .args(["sh", env!("CARGO_BIN_EXE_haven")])
        .arg(dir.path())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{words}");
    true
}

#[test]
fn the_service_is_registered_with_rpcbind_and_withdrawn_at_the_end() {
    isolated(
        r#"
rpcbind -f -w & rpcbind=$!
soon test -S /run/rpcbind.sock
# What a dead server left: on a port where nobody listens.
rpcinfo -s >/dev/null
config ''
serve
soon registered 100003 3 tcp 2049
soon registered 100005 3 udp 20048
registered 100005 1 tcp 20048 || fail "MOUNT version 1"
for version in 1 3 4; do
  registered 100021 $version tcp 2049 || fail "NLM version $version over TCP"
  registered 100021 $version udp 20048 || fail "NLM version $version over UDP"
  rpcinfo -T tcp 10.9.9.1 100021 $version >/dev/null || fail "NLM version $version by TCP"
  rpcinfo -T udp 10.9.9.1 100021 $version >/dev/null || fail "NLM version $version by UDP"
done
bound 100003 3 tcp 0.0.0.0.8.1 || fail "NFS by rpcbind version 4"
over 100005 'tcp udp ' || fail "IPv6, where nobody listens"
showmount -e 127.0.0.1 | grep -q '^/data' || fail "showmount -e"
rpcinfo -T udp 10.9.9.1 100005 3 >/dev/null || fail "MOUNT over UDP, by a second address"
# Killed: its entries stay behind, and the next one takes them over, on other ports.
kill -9 $node; wait $node || true
registered 100003 3 tcp 2049 || fail "rpcbind forgets a dead server by itself"
config 'nfs_port = 3049
mount_port = 3048
portmapper = "register"'
serve
soon registered 100003 3 tcp 3049
soon registered 100005 3 udp 3048
kill -TERM $node; wait $node || fail "not an orderly end"
not registered 100003 3 tcp 3049 || fail "still registered"
not registered 100021 4 tcp 3049 || fail "still registered"
not registered 100005 3 udp 3048 || fail "still registered"
"#,
    );
}

#[test]
fn who_listens_on_ipv6_is_registered_for_it() {
    isolated(
        r#"
rpcbind -f -w & rpcbind=$!
soon test -S /run/rpcbind.sock
config 'listen = "::"'
serve
soon bound 100003 3 tcp6 ::.8.1
soon over 100005 'tcp tcp6 udp udp6 '
soon over 100003 'tcp tcp6 '
bound 100003 3 tcp 0.0.0.0.8.1 || fail "IPv4 on a socket for both"
registered 100003 3 tcp 2049 || fail "by version 2"
rpcinfo -T tcp6 fd09::1 100003 3 >/dev/null || fail "NFS over IPv6"
rpcinfo -T udp6 fd09::1 100005 3 >/dev/null || fail "MOUNT over UDP and IPv6"
rpcinfo -T tcp 10.9.9.1 100003 3 >/dev/null || fail "NFS over IPv4"
# Killed: the next one is only there over IPv4, and clears away what is left of the rest.
kill -9 $node; wait $node || true
over 100003 'tcp tcp6 ' || fail "rpcbind forgets a dead server by itself"
config ''
serve
soon over 100003 'tcp '
soon over 100005 'tcp udp '
bound 100005 3 udp 0.0.0.0.78.80 || fail "MOUNT over UDP"
kill -TERM $node; wait $node || fail "not an orderly end"
over 100003 '' || fail "still registered"
over 100005 '' || fail "still registered"
# One address of one family.
config 'listen = "fd09::1"'
serve
soon bound 100003 3 tcp6 fd09::1.8.1
soon over 100005 'tcp6 udp6 '
over 100003 'tcp6 ' || fail "IPv4, where nobody listens"
kill -TERM $node; wait $node || fail "not an orderly end"
over 100005 '' || fail "still registered"
"#,
    );
}

#[test]
fn a_living_server_keeps_its_registration() {
    isolated(
        r#"
rpcbind -f -w & rpcbind=$!
soon test -S /run/rpcbind.sock
config 'nfs_port = 3049
mount_port = 3048
portmapper = "register"'
serve
soon registered 100003 3 tcp 3049
other=$node
config ''
sed -i "s|/data\"|/data2\"|" "$dir/haven.toml"
serve
soon says 'offers program 100003 version 3 on port 3049'
registered 100003 3 tcp 3049 || fail "taken from a living server"
kill -TERM $node; wait $node || fail "not an orderly end"
registered 100003 3 tcp 3049 || fail "withdrawn for somebody else"
"#,
    );
}

/// As the kernel has on a machine that has mounted something by NFS itself.
#[test]
fn a_lock_manager_of_the_machine_keeps_its_registration_and_the_rest_is_registered() {
    isolated(
        r#"
rpcbind -f -w & rpcbind=$!
soon test -S /run/rpcbind.sock
config 'nfs_port = 3049
mount_port = 3048
portmapper = "register"'
serve
soon registered 100021 4 tcp 3049
other=$node
# What is left of the first is what a lock manager would be.
for program in 100003 100005; do
  for version in 1 3; do rpcinfo -d $program $version 2>/dev/null || true; done
done
config ''
sed -i "s|/data\"|/data2\"|" "$dir/haven.toml"
serve
soon registered 100003 3 tcp 2049
soon registered 100005 1 udp 20048
soon says 'another lock manager'
registered 100021 4 tcp 3049 || fail "taken from a living lock manager"
registered 100021 1 udp 3048 || fail "taken from a living lock manager"
kill -TERM $node; wait $node || fail "not an orderly end"
registered 100021 4 tcp 3049 || fail "withdrawn for somebody else"
"#,
    );
}

#[test]
fn without_rpcbind_the_built_in_portmapper_answers() {
    isolated(
        r#"
config ''
serve
soon says 'serving'
rpcinfo -p 127.0.0.1 >"$dir/list.log" || fail "rpcinfo -p"
registered 100000 2 udp 111 || fail "the port mapper itself"
registered 100003 3 tcp 2049 || fail NFS
showmount -e 127.0.0.1 | grep -q '^/data' || fail "showmount -e"
rpcinfo -T udp 10.9.9.1 100005 3 >/dev/null || fail "MOUNT over UDP"
"#,
    );
}

#[test]
fn the_built_in_portmapper_knows_ipv6_and_all_versions_of_its_protocol() {
    isolated(
        r#"
config 'listen = "::"
portmapper = "builtin"'
serve
soon says 'serving'
rpcinfo -s 127.0.0.1 >"$dir/short.log" || fail "rpcinfo -s"
grep -Eq '^ *100000 +[234],[234],[234] ' "$dir/short.log" || fail "versions 2 to 4"
over 100003 'tcp tcp6 ' || fail "networks of NFS"
over 100021 'tcp tcp6 udp udp6 ' || fail "networks of NLM"
rpcinfo -T tcp6 fd09::1 100021 4 >/dev/null || fail "NLM over IPv6"
rpcinfo -T udp6 fd09::1 100021 4 >/dev/null || fail "NLM over UDP and IPv6"
over 100005 'tcp tcp6 udp udp6 ' || fail "networks of MOUNT"
registered 100003 3 tcp 2049 || fail "by version 2"
rpcinfo -T tcp6 fd09::1 100003 3 >/dev/null || fail "NFS over IPv6"
rpcinfo -T udp6 fd09::1 100005 3 >/dev/null || fail "MOUNT over UDP and IPv6"
rpcinfo -T udp 10.9.9.1 100005 3 >/dev/null || fail "MOUNT over UDP and IPv4"
rpcinfo -T tcp 10.9.9.1 100003 | grep -q 'version 3 ready' || fail "NFS, whatever version"
# Addresses are those asked at.
rpcinfo -l 10.9.9.1 100003 3 | grep -q ' 10\.9\.9\.1\.8\.1 ' || fail "an IPv4 address"
rpcinfo -l fd09::1 100003 3 | grep -q ' fd09::1\.8\.1 ' || fail "an IPv6 address"
"#,
    );
}

#[test]
fn with_ports_of_its_own_the_service_is_not_registered() {
    isolated(
        r#"
rpcbind -f -w & rpcbind=$!
soon test -S /run/rpcbind.sock
config 'nfs_port = 3049'
serve
soon says 'rpcbind=false'
not registered 100003 3 tcp 3049 || fail "registered"
"#,
    );
}
