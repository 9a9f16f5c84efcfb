//! Moments as people read them.

use dunlin_base::Time;

const MINUTE_MS: i64 = 60_000;
const DAY_MINUTES: i64 = 24 * 60;

/// How far the reader's clock is ahead of UTC. Offsets that no place on earth has count as none.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Zone(i64);

impl Zone {
    /// Takes an offset in minutes.
    pub const fn from_minutes(minutes: i32) -> Self {
        if minutes.unsigned_abs() < DAY_MINUTES as u32 { Self(minutes as i64) } else { Self(0) }
    }

    /// `at 12:01` when it is the day of `now`, or else `at 12:01 on 2026-11-24`.
    pub fn at(self, time: Time, now: Time) -> String {
        let (day, minute) = self.day_and_minute(time);
        let clock = format!("at {:02}:{:02}", minute / 60, minute % 60);
        if day == self.day_and_minute(now).0 {
            return clock;
        }
        let (year, month, day) = civil(day);
        format!("{clock} on {year:04}-{month:02}-{day:02}")
    }

    fn day_and_minute(self, time: Time) -> (i64, i64) {
        let minutes = i64::try_from(time.as_millis()).unwrap_or(i64::MAX) / MINUTE_MS + self.0;
        (minutes.div_euclid(DAY_MINUTES), minutes.rem_euclid(DAY_MINUTES))
    }
}

/// Year, month and day of a day counted from 1970-01-01, in the Gregorian calendar.
///
/// Counts in years that begin in March, so that the leap day is the last one.
fn civil(day: i64) -> (i64, i64, i64) {
    let day = day + 719_468;
    let era = day.div_euclid(146_097);
    let of_era = day.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * of_year + 2) / 153;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, of_year - (153 * shifted + 2) / 5 + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_the_day_only_when_it_is_another() {
        let noon = Time::from_secs(1_764_000_060); // 2025-11-24 16:01 UTC
        let utc = Zone::default();
        assert_eq!(utc.at(noon, noon), "at 16:01");
        assert_eq!(utc.at(noon, Time::from_secs(1_764_086_400)), "at 16:01 on 2025-11-24");
        assert_eq!(Zone::from_minutes(600).at(noon, noon), "at 02:01");
        assert_eq!(Zone::from_minutes(-150).at(noon, noon), "at 13:31");
        assert_eq!(Zone::from_minutes(i32::MIN), utc);
    }

    #[test]
    fn knows_the_calendar() {
        for (day, date) in [
            (0, (1970, 1, 1)),
            (-1, (1969, 12, 31)),
            (59, (1970, 3, 1)),
            (11_016, (2000, 2, 29)),
            (19_782, (2024, 2, 29)),
            (20_089, (2025, 1, 1)),
        ] {
            assert_eq!(civil(day), date);
        }
        assert!(Zone::default().at(Time::from_millis(u64::MAX), Time::default()).starts_with("at "));
    }
}
