//! Prints tables of measurements, and the goals.

use crate::{cold::Cold, measure::Values, warm::Warm};

/// Prints rows of measurements. Each value has its multiple of the first row's value.
pub fn table(columns: &[&str], rows: &[(&str, Vec<Values>)]) {
    print!("{:<24}", "");
    for column in columns {
        print!("{column:>26}");
    }
    println!();
    for (name, values) in rows {
        print!("{name:<24}");
        for (value, first) in values.iter().zip(&rows[0].1) {
            let (median, worst) = (value.median(), value.percentile(99));
            let spread = if value.count() > 1 { format!("({worst:.2})") } else { String::new() };
            print!("{median:>10.2} {spread:>9} {:>5}", format!("{:.1}x", median / first.median()));
        }
        println!();
    }
}

/// Prints an upper limit with the measured value.
pub fn at_most(what: &str, reached: f64, goal: f64) {
    let verdict = if reached <= goal { "met" } else { "NOT MET" };
    println!("{what:<64} {reached:>8.2}  at most  {goal:>6.2}  {verdict}");
}

/// Prints each goal with the measured value.
pub fn goals(cold: &[Cold], warm: &[Warm]) {
    let [ours, hello, default_rust, node, python] = cold else { panic!("all functions are compared") };
    let warmest = warm.iter().map(|route| route.ours / route.bare).fold(0.0, f64::max);
    println!("\nGoals\n");
    at_most("first byte to DynamoDB / hello's init", ours.first_byte / hello.init, 1.5);
    at_most("init with the open connection / hello's init", ours.init / hello.init, 2.3);
    at_most("zip, MiB", ours.zip_mib, 3.0);
    at_most("peak memory, MiB", ours.peak_mib, 16.0);
    at_most("slowest warm route / bare SDK calls", warmest, 1.08);
    let at_least = |what: &str, reached: f64, goal: f64| {
        let verdict = if reached >= goal { "met" } else { "NOT MET" };
        println!("{what:<64} {reached:>8.2}  at least {goal:>6.2}  {verdict}");
    };
    for (other, goal) in [(node, 10.0), (python, 10.0), (default_rust, 5.0)] {
        at_least(&format!("first answer of {} / ours", other.name), other.answer / ours.answer, goal);
    }
}
