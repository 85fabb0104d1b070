"""What V-RAG needs in an AWS account: its template, its stack, what it costs idle, and how it goes away again."""
