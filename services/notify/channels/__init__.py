"""The ways out: SMS, e-mail, webhook. Each makes one attempt and says what became of it."""
