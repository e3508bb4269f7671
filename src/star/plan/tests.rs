use super::*;

const ID: StarId = StarId {
    process: 7,
    start: 9,
    number: 0,
};

fn shown(steps: &[Step]) -> String {
    steps.iter().map(|step| format!("{step}\n")).collect()
}

#[test]
fn the_plan_of_the_smallest_star() {
    let layout = Layout::new(2, Rate(100_000_000));
    insta::assert_snapshot!(shown(&up(&ID, &layout)), @"");
}

#[test]
fn the_plan_of_a_lossy_router() {
    let mut layout = Layout::new(2, Rate(10_000_000));
    layout.middle = Middle::Router;
    layout.links[1].up = Rate(1_000_000);
    layout.offloads = true;
    layout.delay = Duration::from_millis(5);
    insta::assert_snapshot!(shown(&up(&ID, &layout)), @"");
}

#[test]
fn the_plan_of_loss() {
    let layout = Layout::new(2, Rate(10_000_000));
    let one_percent = Loss {
        millionths: 10_000,
        of: Traffic::All,
    };
    insta::assert_snapshot!(shown(&loss(&ID, &layout, one_percent)), @"");
    insta::assert_snapshot!(shown(&no_loss(&ID, &layout)), @"");
}

#[test]
fn a_queue_holds_what_a_blocking_socket_sends() {
    assert_eq!(queue_bytes(Rate(10_000_000)), 262_144);
    assert_eq!(queue_bytes(Rate(100_000_000)), 625_000);
    assert_eq!(shaper(Rate(1_000_000_000)), "tbf rate 1000000000bit burst 312500 limit 6250000");
}

#[test]
fn nothing_is_made_outside_the_stars_own_namespaces() {
    let layout = Layout::new(20, Rate(100_000_000));
    let names = namespaces(&ID, &layout);
    for step in up(&ID, &layout) {
        let line = step.to_string();
        match &step.inside {
            Some(namespace) => assert!(names.contains(namespace), "{line}"),
            None => assert!(
                line.starts_with("ip netns add gatecast-7-9-0-")
                    || line.starts_with("ip link add p") && line.contains(" netns gatecast-7-9-0-switch "),
                "{line}"
            ),
        }
    }
    assert_eq!(down(&names).len(), 21);
}
