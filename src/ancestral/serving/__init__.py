"""A model behind HTTP: the verbs as JSON, and an OpenAI-compatible endpoint that draws texts by continuous batching.

Needs the extra ``serve``; :func:`ancestral.serving.app.create_app` makes the application.
"""
