//! Delivery of OTP messages to the console under `serve --demo`. In production, a pipe passes the
//! same messages from the table's stream to the senders.

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
        // Only a warning, because the request must go on if the console is closed.
        if let Err(failure) = line(&printable(&text)) {
            tracing::warn!(cause = %failure, "a message cannot be shown");
        }
    }
}
