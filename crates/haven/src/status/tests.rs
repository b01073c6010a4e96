use super::*;

fn outside() -> Outside {
    Outside {
        verdict: Verdict::Degraded,
        node: Some("c".into()),
        why: "cannot reach a node at /var/lib/haven/control.sock (No such file or directory (os error 2)); is \
              `haven serve` running there?"
            .into(),
        service_at: Some("10.0.0.100:2049".parse().unwrap()),
        looked_at: vec!["10.0.0.100:2049".parse().unwrap()],
        others: vec![
            Other {
                name: "a".into(),
                address: "10.0.0.1:7400".parse().unwrap(),
                runs: true,
                seen: "its process runs".into(),
            },
            Other {
                name: "b".into(),
                address: "10.0.0.2:7400".parse().unwrap(),
                runs: false,
                seen: "no connection: Connection refused (os error 111)".into(),
            },
        ],
    }
}

#[test]
fn a_machine_whose_node_is_down_says_what_can_be_seen() {
    assert_eq!(
        outside().draw(),
        "\
node c of this machine does not answer: DEGRADED

  why       cannot reach a node at /var/lib/haven/control.sock (No such file or
            directory (os error 2)); is `haven serve` running there?
  service   answers at 10.0.0.100:2049: another node serves
  node      a at 10.0.0.1:7400: its process runs
  node      b at 10.0.0.2:7400: no connection: Connection refused (os error 111)

  to do     start this node (systemctl start haven; journalctl -u haven says why
            it ended); haven status on node a tells more
"
    );
}

#[test]
fn without_a_configuration_only_the_socket_is_known() {
    let mut outside = outside();
    outside.node = None;
    outside.service_at = None;
    outside.looked_at.clear();
    outside.others.clear();
    outside.verdict = Verdict::Down;
    let drawn = outside.draw();
    assert!(drawn.starts_with("the node does not answer: DOWN\n"));
    assert!(!drawn.contains("service"));
    assert_eq!(Told::Outside(outside).verdict().exit_code(), 2);
}
