"""From briefs to videos: plan, render queue, runner."""
