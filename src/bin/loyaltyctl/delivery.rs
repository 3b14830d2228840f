//! Delivery of OTP messages under `serve --demo`: to the console. In production, a pipe brings the same messages
//! from the table's stream to whoever sends them.

use loyalty_codes::model::message::{ChannelType, Message};

use crate::output::{line, printable};

/// Prints a line for each channel of a message.
pub fn to_console(message: &Message) {
    for channel in &message.channels {
        let text = match channel.channel_type {
            ChannelType::Email => {
                format!("{}: {}", message.email_subject.expose(), message.email_body.expose())
            }
            _ => message.text.expose().clone(),
        };
        let text = format!("delivered by {} to {}: {text}", channel.channel_type, channel.value);
        // Within a request, which goes on where the console is gone.
        if let Err(failure) = line(&printable(&text)) {
            tracing::warn!(cause = %failure, "a message cannot be shown");
        }
    }
}
