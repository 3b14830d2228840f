//! Measurement helpers that both benches share.

use std::fs;

/// All values of one measure.
pub struct Values(Vec<f64>);

impl Values {
    pub fn new(mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        Self(values)
    }

    pub fn count(&self) -> usize {
        self.0.len()
    }

    pub fn median(&self) -> f64 {
        self.percentile(50)
    }

    /// The smallest value that this percentage of all values does not exceed. 0 if there are no
    /// values.
    pub fn percentile(&self, percent: usize) -> f64 {
        let at = (self.0.len() * percent).div_ceil(100).max(1) - 1;
        self.0.get(at).copied().unwrap_or_default()
    }
}

/// Memory of a process in MiB. `measure` is `VmRSS` for the present memory, `VmHWM` for the peak.
pub fn memory(process: u32, measure: &str) -> f64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let value = status.lines().find_map(|line| line.strip_prefix(measure)?.strip_prefix(':')).unwrap();
    value.trim().strip_suffix(" kB").unwrap().parse::<f64>().unwrap() / 1024.0
}
