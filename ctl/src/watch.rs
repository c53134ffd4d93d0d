//! `lanyard status --watch`.

use std::io::{self, IsTerminal, Write};
use std::thread;
use std::time::{Duration, Instant};

use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use ratatui::style::{Color, Style};
use ratatui::text::Line as Row;
use ratatui::widgets::Paragraph;
use ratatui::{DefaultTerminal, Frame};

use crate::output;
use crate::source::Source;
use crate::text::{Line, Tone, render};

const REDRAW: Duration = Duration::from_millis(500);
const BLOCK: Duration = Duration::from_secs(1);

/// Until q on a terminal; else a block each second, until nobody reads them.
pub fn run(source: &mut Source, json: bool, out: &mut dyn Write) -> anyhow::Result<()> {
    if !json && io::stdout().is_terminal() && io::stdin().is_terminal() {
        let mut terminal = ratatui::try_init()?;
        let result = until_quit(&mut terminal, source);
        ratatui::try_restore()?;
        return Ok(result?);
    }
    loop {
        source.renew();
        output::status(out, &source.status(), json)?;
        if !json {
            writeln!(out)?;
            out.flush()?;
        }
        thread::sleep(BLOCK);
    }
}

fn until_quit(terminal: &mut DefaultTerminal, source: &mut Source) -> io::Result<()> {
    let mut scroll = 0_u16;
    loop {
        source.renew();
        let lines = render(&source.status());
        scroll = scroll.min(u16::try_from(lines.len().saturating_sub(1)).unwrap_or(u16::MAX));
        terminal.draw(|frame| draw(frame, &lines, scroll))?;
        let next = Instant::now() + REDRAW;
        while event::poll(next.saturating_duration_since(Instant::now()))? {
            match event::read()? {
                Event::Key(key) if quits(key) => return Ok(()),
                Event::Key(key) if key.kind == KeyEventKind::Press => {
                    scroll = match key.code {
                        KeyCode::Down | KeyCode::Char('j') => scroll.saturating_add(1),
                        KeyCode::Up | KeyCode::Char('k') => scroll.saturating_sub(1),
                        KeyCode::PageDown => scroll.saturating_add(10),
                        KeyCode::PageUp => scroll.saturating_sub(10),
                        _ => continue,
                    };
                    break;
                }
                Event::Resize(..) => break,
                _ => {}
            }
        }
    }
}

fn quits(key: KeyEvent) -> bool {
    let control = key.modifiers.contains(KeyModifiers::CONTROL);
    match key.code {
        KeyCode::Char('q') | KeyCode::Esc => true,
        // The terminal is in raw mode: the key no longer makes a signal.
        KeyCode::Char('c') => control,
        _ => false,
    }
}

fn draw(frame: &mut Frame<'_>, lines: &[Line], scroll: u16) {
    let style = |tone| match tone {
        Tone::Plain => Style::new(),
        Tone::Title => Style::new().bold(),
        Tone::Good => Style::new().fg(Color::Green).bold(),
        Tone::Loud => Style::new().fg(Color::Red).bold(),
    };
    let hint = Row::styled("q quits, arrows scroll", Style::new().dim());
    let rows = lines.iter().map(|line| Row::styled(line.text.as_str(), style(line.tone)));
    let rows: Vec<Row<'_>> = rows.chain([Row::default(), hint]).collect();
    frame.render_widget(Paragraph::new(rows).scroll((scroll, 0)), frame.area());
}

#[cfg(test)]
mod tests {
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    use super::*;
    use crate::fixture;
    use crate::status::Status;

    #[test]
    fn trouble_is_red_on_the_screen() {
        let (_segment, view) = fixture::tripped();
        let lines = render(&Status::read(&view, fixture::NOW, None));
        let mut terminal = Terminal::new(TestBackend::new(100, 12)).unwrap();
        terminal.draw(|frame| draw(frame, &lines, 1)).unwrap();
        let buffer = terminal.backend().buffer();
        // Scrolled by one line: the front comes first, then the first alert.
        assert_eq!((buffer[(0, 0)].symbol(), buffer[(0, 0)].fg), ("f", Color::Reset));
        assert_eq!((buffer[(0, 1)].symbol(), buffer[(0, 1)].fg), ("!", Color::Red));
    }

    #[test]
    fn three_keys_quit() {
        let key = |code, modifiers| KeyEvent::new(code, modifiers);
        assert!(quits(key(KeyCode::Char('q'), KeyModifiers::NONE)));
        assert!(quits(key(KeyCode::Esc, KeyModifiers::NONE)));
        assert!(quits(key(KeyCode::Char('c'), KeyModifiers::CONTROL)));
        assert!(!quits(key(KeyCode::Char('c'), KeyModifiers::NONE)));
    }
}
