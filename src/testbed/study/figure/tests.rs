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
    let shared = figures[0].chart.series.last().expect("a series");
    assert!(shared.reference && !shared.companion, "nobody's colour");
}

#[test]
fn completion_curve_ends_at_the_makespan() {
    let chart = &all(&sample())[3].chart;
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
    assert_eq!(names[4], "makespan-10MB-100mbit-loss0_1");
    assert_eq!(names[8], "loss");
    let chart = &figures[8].chart;
    assert_eq!(chart.x.ticks, [0.0, 0.1]);
    assert_eq!(chart.series[0].points.len(), 2);
}
