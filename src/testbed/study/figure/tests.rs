use super::*;
use crate::testbed::study::results::tests::sample;

fn names(chart: &Chart) -> Vec<&str> {
    chart.series.iter().map(|series| &series.name[..]).collect()
}

#[test]
fn each_via_has_its_bound_and_equal_bounds_are_one_line() {
    let mut results = sample();
    let figures = all(&results);
    assert_eq!(names(&figures[0].chart), ["tcp", "bound of tcp"]);
    assert!(figures[0].chart.series[1].reference && figures[0].chart.series[1].companion);

    for (way, factor) in [("http", 1.0), ("swarm", 0.5)] {
        results.grid.ways.push(way.to_owned());
        let rows = results.rows.clone();
        results.rows.extend(rows.into_iter().filter(|row| row.via == "tcp").map(|row| StudyRow {
            via: way.to_owned(),
            bound_s: row.bound_s.map(|bound| bound * factor),
            ..row
        }));
    }
    let figures = all(&results);
    assert_eq!(
        names(&figures[0].chart),
        ["tcp", "http", "swarm", "bound of swarm", "bound of tcp, http"]
    );
    // C/S and P2P stand in one figure, the mean time of their clients too.
    assert_eq!(figures[1].name, "mean");
    assert_eq!(names(&figures[1].chart), ["tcp", "http", "swarm"]);
    let heights = |at: usize| figures[1].chart.series[at].points.iter().map(|point| point.y);
    let of_tcp = results.rows.iter().filter(|row| row.via == "tcp");
    let means: Vec<f64> = of_tcp.filter_map(|row| row.client_mean_s).collect();
    assert!(!means.is_empty() && heights(0).eq(means), "{:?}", figures[1].chart.series);
    let shared = figures[0].chart.series.last().expect("a series");
    assert!(shared.reference && !shared.companion, "nobody's colour");
}

#[test]
fn completion_curve_ends_at_the_makespan() {
    let chart = &all(&sample())[4].chart;
    assert_eq!(chart.title, "Clients that have the whole file, of 4");
    let last = chart.series[0].points.last().expect("a point");
    assert_eq!((last.x, last.y), (3.6, 4.0), "the median run of 3.55, 3.6 and 3.65 s");
    assert_eq!(chart.series[0].points.len(), 4);
}

#[test]
fn several_losses_have_their_own_sets_and_a_loss_plot() {
    let mut results = sample();
    let lossy = results.rows.clone().into_iter().map(|row| StudyRow { loss: 0.001, ..row });
    results.rows.extend(lossy.collect::<Vec<StudyRow>>());
    let figures = all(&results);
    let names: Vec<&str> = figures.iter().map(|figure| &figure.name[..]).collect();
    assert_eq!(names[0], "makespan-10MB-100mbit-loss0");
    assert_eq!(names[5], "makespan-10MB-100mbit-loss0_1");
    assert_eq!(names[10], "loss");
    let chart = &figures[10].chart;
    assert_eq!(chart.x.ticks, [0.0, 0.1]);
    assert_eq!(chart.series[0].points.len(), 2);
}
