//! A study as one self-contained page: plots, table, links, environment. No scripts, nothing from
//! elsewhere.

use crate::{
    report::{plot::xml, table::or_dash},
    testbed::study::{
        figure::{self, Figure},
        results::Results,
        table,
    },
};

const STYLE: &str = include_str!("page.css");

/// The page.
pub fn html(results: &Results, figures: &[Figure]) -> String {
    let mut page = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n<title>gatecast study</title>\n\
         <style>{STYLE}</style>\n</head>\n<body>\n<h1>gatecast study</h1>\n"
    );
    let (ways, clients) = (results.grid.ways.join(", "), &results.grid.clients);
    let span = match (clients.first(), clients.last()) {
        (Some(first), Some(last)) if first != last => format!("{first} to {last} clients"),
        (Some(1), _) => "1 client".to_owned(),
        (Some(one), _) => format!("{one} clients"),
        _ => "no clients".to_owned(),
    };
    page += &format!(
        "<p>{} to {span}; {}; {}. Every copy of every run was verified unless the table says \
         otherwise.</p>\n",
        xml(&ways),
        xml(&results.links),
        figure::repeats(&results.rows.iter().collect::<Vec<_>>())
    );
    page += &format!("<h2>Table</h2>\n<pre>{}</pre>\n", block(&table::table(results, None)));
    page += "<h2>Plots</h2>\n";
    for figure in figures {
        let (svg, caption) = (figure.chart.to_svg(), xml(figure.caption));
        page += &format!("<figure>\n{svg}<figcaption>{caption}</figcaption>\n</figure>\n");
    }
    let troubled = results.measurements.iter().filter_map(|run| Some((run, run.trouble()?)));
    let failed = troubled.map(|(run, why)| {
        let (cell, way) = (&run.cell, xml(&run.cell.way));
        let (clients, bytes, repeat) = (cell.clients, cell.bytes, run.repeat + 1);
        let why = xml(why);
        format!("<li>{way}, {clients} clients, {bytes} bytes, repeat {repeat}: {why}</li>\n")
    });
    let failed: String = failed.collect();
    if !failed.is_empty() {
        page += &format!("<h2>Failed runs</h2>\n<ul>\n{failed}</ul>\n");
    }
    if !results.calibration.is_empty() {
        page += "<h2>Links, as measured before the runs</h2>\n";
    }
    for star in &results.calibration {
        let (mbit, percent) = (star.rate_nominal_mbit, star.loss * 100.0);
        let links = block(&star.links.to_string());
        page += &format!("<h3>{mbit} Mbit/s, loss {percent} %</h3>\n<pre>{links}</pre>\n");
        if let Some(why) = &star.short_together {
            page += &format!("<p>{}</p>\n", xml(why));
        }
    }
    page += "<h2>Environment</h2>\n<table>\n";
    for (name, value) in environment(results) {
        page += &format!("<tr><td>{name}</td><td>{}</td></tr>\n", xml(&value));
    }
    page + "</table>\n</body>\n</html>\n"
}

fn environment(results: &Results) -> Vec<(&'static str, String)> {
    let stamp = &results.environment;
    let bytes = |value: Option<u64>| or_dash(value.map(|value| format!("{value} bytes")));
    vec![
        ("began", or_dash(stamp.began.as_ref())),
        ("command", stamp.command.join(" ")),
        ("gatecast", stamp.version.clone()),
        ("kernel", or_dash(stamp.kernel.as_ref())),
        ("processor", or_dash(stamp.processor.as_ref())),
        ("cores", or_dash(stamp.cores)),
        ("memory", bytes(stamp.memory_bytes)),
        ("load as it began", or_dash(stamp.load)),
        ("congestion control", or_dash(stamp.congestion.as_ref())),
        ("offloads", stamp.offloads.clone()),
        ("in the middle", stamp.middle.clone()),
        ("MTU", bytes(stamp.mtu)),
        ("queues", stamp.queues.join("; ")),
        ("tcp_rmem", or_dash(stamp.tcp_rmem.as_ref())),
        ("tcp_wmem", or_dash(stamp.tcp_wmem.as_ref())),
        ("rmem_default", bytes(stamp.rmem_default)),
        ("wmem_default", bytes(stamp.wmem_default)),
        ("copies on", or_dash(stamp.copies.as_ref())),
        ("seed", or_dash(stamp.seed)),
    ]
}

/// Lines as HTML.
fn block(lines: &str) -> String {
    let lines: Vec<String> = lines.lines().map(xml).collect();
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testbed::study::{figure, results::tests::sample};

    #[test]
    fn page_of_single_runs_speaks_of_no_medians() {
        let mut results = sample();
        results.rows.iter_mut().for_each(|row| row.runs = 1);
        results.measurements.retain(|run| run.repeat == 0);
        let page = html(&results, &figure::all(&results));
        assert!(page.contains("sample links; one run each. Every copy"));
        assert!(!page.contains("median of") && !page.contains("medians of"), "{page}");
        assert!(page.contains("each way's run") || page.contains("each way&#39;s run"), "{page}");
    }

    #[test]
    fn page_is_self_contained() {
        let mut results = sample();
        let evil = "</pre><script>alert(1)</script>\u{202e}";
        results.measurements[0].failed = Some(evil.to_owned());
        results.environment.command = vec!["gatecast".to_owned(), evil.to_owned()];
        let figures = figure::all(&results);
        let names: Vec<&str> = figures.iter().map(|figure| &figure.name[..]).collect();
        assert_eq!(names, ["makespan", "mean", "efficiency", "traffic", "completion"]);
        let page = html(&results, &figures);
        assert_eq!(page.matches("<svg").count(), 5);
        assert!(page.contains("Failed runs"));
        assert!(page.contains("sample links; medians of 3 runs. Every copy"));
        // What was measured stands before how it looks.
        assert!(page.find("<h2>Table</h2>") < page.find("<h2>Plots</h2>"));
        for wrong in ["<script", "\u{202e}", "http://", "https://", "src="] {
            let page = page.replace("http://www.w3.org/2000/svg", "");
            assert!(!page.contains(wrong), "{wrong}");
        }
    }
}
